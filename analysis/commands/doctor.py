"""`python -m analysis doctor`: account for all that is under a root, and report what is wrong."""

from __future__ import annotations

import argparse

from analysis.commands.options import Subparsers, load_root, new_command, write_out


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    new_command(
        subparsers,
        "doctor",
        run,
        study=False,
        help="list the problems of a root (exit code 1), or none (0)",
        description="Rejected files, mixed configurations, missing seeds, unequal budgets, failed trials, scores that "
        "are not their predictions'. Exit code 1 if something is wrong; unfinished trials and rows that no study shows "
        "are listed only.",
    )


def run(options: argparse.Namespace) -> int:
    """Print what was found; 1 if something is wrong."""
    from analysis.doctor import examination_text, examine

    found = examine(load_root(options))
    write_out(examination_text(found), None)
    return 1 if found.problems else 0
