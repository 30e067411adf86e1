"""`python -m analysis missing`: the teacher without each modality, beside the students."""

from __future__ import annotations

import argparse

from analysis.commands.options import (
    Subparsers,
    add_cache,
    add_output,
    add_root,
    add_study,
    check_out,
    chosen_study,
    tell,
    write_out,
)
from analysis.tables.formats import FORMATS, write


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "missing",
        help="the teacher with each modality blank, beside the students",
        description="Scores on test of a study's teachers with each modality blank (standardised features that are "
        "zero: their mean over train) and with each alone, beside the students. Reads weights and data.",
    )
    add_root(parser)
    add_study(parser)
    add_output(parser, FORMATS)
    add_cache(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, and print or write the table."""
    from analysis.loading.runs import load
    from analysis.networks.missing_modalities import missing

    check_out(options.out)
    made = missing(
        load(options.root, cache=options.cache),
        chosen_study(options.root, options.study),
        lambda what: tell(f"measuring {what}"),
    )
    write_out(write(made, options.format), options.out)
    return 0
