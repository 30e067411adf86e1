"""`python -m analysis diff`: where two rows, or two studies, differ."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from analysis.commands.options import Subparsers, new_command, output_format, write_out
from mmkd.command import study_name

FORMATS = ("txt", "json")


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = new_command(
        subparsers,
        "diff",
        run,
        FORMATS,
        study=False,
        help="show where two rows or two studies differ: configuration, code, results",
        description="Show where two rows differ, or two studies row by row: configuration, winner, code, and the test "
        "scores of both with A - B over seeds. Omits what is equal. To test over samples too, use compare.",
    )
    parser.add_argument("a", metavar="A", help="a row (its name in a study, or its directory), or a study's name")
    parser.add_argument("b", metavar="B", help="another of the same kind")
    parser.add_argument(
        "--study", type=study_name, metavar="NAME", help="the study of the rows, if several have rows of these names"
    )


def run(options: argparse.Namespace) -> int:
    """Print or write the differences."""
    from analysis.tables.difference import as_text, difference

    style = output_format(options, FORMATS)
    found = difference(options.root, options.a, options.b, options.study, cache=options.cache)
    text = as_text(found) if style == "txt" else json.dumps(asdict(found), indent=1) + "\n"
    write_out(text, options.out)
    return 0
