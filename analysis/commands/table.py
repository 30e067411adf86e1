"""`python -m analysis table`: a study's ablation table."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from analysis.commands.options import Subparsers, add_root, add_study, chosen_study, write_out

FORMATS = ("txt", "md")


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser("table", help="a study's ablation table")
    add_root(parser)
    add_study(parser)
    parser.add_argument("--format", choices=FORMATS, default="txt", help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print or write the table; on a terminal as wide as that is."""
    from analysis.loading import load
    from analysis.rendering import to_markdown, to_text
    from analysis.tables import table

    runs = load(options.root)
    made = table(runs, chosen_study(options.root, options.study))
    if options.format == "md":
        text = to_markdown(made)
    elif options.out is None and sys.stdout.isatty():
        text = to_text(made, shutil.get_terminal_size().columns)
    else:
        text = to_text(made)
    write_out(text, options.out)
    return 0
