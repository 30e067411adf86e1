"""`python -m analysis doctor`: account for all that is under a root, and report what is wrong."""

from __future__ import annotations

import argparse
from dataclasses import replace

from analysis.commands.options import Subparsers, load_root, new_command, write_out
from mmkd.steps import show_steps


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = new_command(
        subparsers,
        "doctor",
        run,
        study=False,
        help="check a root for problems (exit code 1 if there are any)",
        description="Check a root for everything that a table warns about, for rejected files and failed trials, and "
        "for scores, weights, configurations, journals and plans that contradict each other. The exit code is 1 if "
        "something is wrong. Unfinished trials and rows of no study are only listed.",
    )
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="also evaluate the stored weights of final runs and teachers on their data, and compare the outputs",
    )


def run(options: argparse.Namespace) -> int:
    """Print what was found; 1 if something is wrong."""
    from analysis.doctor import examination_text, examine

    runs = load_root(options)
    found = examine(runs)
    if options.recompute:
        from analysis.networks.recompute import wrong_outputs

        with show_steps() as tell:
            again = tuple(wrong_outputs(runs.root, found.tested(runs), tell))
        found = replace(found, findings=(*found.findings, *again))
    write_out(examination_text(found), None)
    return 1 if found.problems else 0
