"""`python -m analysis doctor`: account for all that is under a root, and report what is wrong."""

from __future__ import annotations

import argparse

from analysis.commands.options import Subparsers, add_cache, add_root, write_out


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="what is wrong under a root (exit code 1) or that nothing is (0)",
        description="Rejected files, mixed configurations, missing seeds, unequal budgets, failed trials, scores that "
        "are not their predictions'. Exit code 1 if something is wrong; unfinished trials and rows that no study shows "
        "are listed only.",
    )
    add_root(parser)
    add_cache(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what was found; 1 if something is wrong."""
    from analysis.doctor import examination_text, examine
    from analysis.loading.runs import load

    found = examine(load(options.root, cache=options.cache))
    write_out(examination_text(found), None)
    return 1 if found.problems else 0
