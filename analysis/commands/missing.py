"""`python -m analysis missing`: the teacher without each modality, beside the students."""

from __future__ import annotations

import argparse

from analysis.commands.options import Subparsers, load_study, new_command, output_format, tell_measured, write_out
from analysis.tables.formats import FORMATS, write


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    new_command(
        subparsers,
        "missing",
        run,
        FORMATS,
        help="evaluate the teacher with each modality blank, beside the students",
        description="Evaluate a study's teachers on test with each modality blank (standardised features set to zero, "
        "their mean over train) and with each one alone, beside the students. Reads weights and data.",
    )


def run(options: argparse.Namespace) -> int:
    """Measure, and print or write the table."""
    from analysis.networks.missing_modalities import missing

    style = output_format(options, FORMATS)
    write_out(write(missing(*load_study(options), tell_measured), style), options.out)
    return 0
