"""`python -m analysis compare`: two rows of a study side by side."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from analysis.commands.options import Subparsers, load_study, new_command, output_format, write_out

FORMATS = ("txt", "json")


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = new_command(
        subparsers,
        "compare",
        run,
        FORMATS,
        help="compare two rows of a study, over seeds and over test samples",
        description="Test whether row A is better than row B: Welch's t over seeds, McNemar and a paired bootstrap "
        "over test samples (from stored predictions), and P(A > B).",
    )
    parser.add_argument("a", metavar="A", help="a row's name (mmkd launch --study NAME --dry-run lists them)")
    parser.add_argument("b", metavar="B", help="another row's name")


def run(options: argparse.Namespace) -> int:
    """Print or write the comparison."""
    from analysis.tables.comparison import compare, comparison_text

    style = output_format(options, FORMATS)
    found = compare(*load_study(options), options.a, options.b)
    text = comparison_text(found) if style == "txt" else json.dumps(asdict(found), indent=1) + "\n"
    write_out(text, options.out)
    return 0
