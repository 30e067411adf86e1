"""`python -m analysis table`: a study's ablation table."""

from __future__ import annotations

import argparse
import shutil
import sys

from analysis.commands.options import Subparsers, load_root, load_study, new_command, output_format, write_out
from analysis.stats.error_bars import ERRORS
from analysis.tables.formats import FORMATS, write
from mmkd.errors import UserError
from mmkd.steps import show_steps

WIDTH = 100
"""Characters of a text that is no terminal's."""


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = new_command(
        subparsers,
        "table",
        run,
        FORMATS,
        help="print a study's ablation table",
        description="Print a study's ablation table. The format tex gives a tabular for booktabs.",
    )
    parser.add_argument(
        "--error",
        choices=ERRORS,
        default="sd",
        help="value after ±: SD over replicates or seeds, SEM, or half of the 95%% interval (default: sd)",
    )
    parser.add_argument("--columns", metavar="A,B,...", help="only these columns, named as in --format csv")
    parser.add_argument(
        "--notes",
        choices=("short", "all"),
        help="short: only the columns that fit, and short notes (default for text on standard output); all: everything",
    )
    parser.add_argument(
        "--margin",
        type=float,
        metavar="POINTS",
        help="also test whether rows equal their controls within this many points of accuracy",
    )
    parser.add_argument(
        "--across",
        nargs="+",
        metavar="STUDY",
        help="print one table of the rows that these studies share, each study on different data, with mean ranks",
    )
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows and the control")


def run(options: argparse.Namespace) -> int:
    """Print or write the table; on a terminal as wide as that is.

    Raises:
        UserError: options that exclude each other, or see `analysis.table` and `analysis.across`.
    """
    from analysis.tables.ablation import table
    from analysis.tables.data_sets import across
    from analysis.tables.text import to_text

    style = output_format(options, FORMATS)
    columns = options.columns.split(",") if options.columns else None
    if options.across is not None:
        if options.study or columns or options.margin is not None:
            raise UserError("--across: shows whole studies; leave out --study, --columns and --margin")
        made = across(load_root(options), options.across, error=options.error, rows=options.rows)
    else:
        runs, study = load_study(options)
        chosen = {"columns": columns, "rows": options.rows, "margin": options.margin}
        with show_steps() as tell:
            made = table(runs, study, error=options.error, tell=tell, **chosen)
    if style != "txt":
        write_out(write(made, style), options.out)
        return 0
    is_shown = options.out is None
    width = shutil.get_terminal_size().columns if is_shown and sys.stdout.isatty() else WIDTH
    short = options.notes == "short" or (is_shown and options.notes is None)
    write_out(to_text(made, width, short=short), options.out)
    return 0
