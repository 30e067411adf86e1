"""`python -m analysis table`: a study's ablation table."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from analysis.commands.options import Subparsers, load_study, new_command, write_out
from analysis.stats.error_bars import ERRORS
from analysis.tables.formats import FORMATS, write
from mmkd.errors import UserError


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = new_command(subparsers, "table", run, help="a study's ablation table")
    parser.add_argument(
        "--format", choices=FORMATS, help="tex is a tabular for booktabs (default: as --out ends, else txt)"
    )
    parser.add_argument(
        "--error", choices=ERRORS, default="sd", help="behind ±: SD over seeds, SEM, or half the 95%% interval (sd)"
    )
    parser.add_argument("--columns", metavar="A,B,...", help="these columns alone, by the names of --format csv")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="these rows and the control alone")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")


def run(options: argparse.Namespace) -> int:
    """Print or write the table; on a terminal as wide as that is."""
    from analysis.tables.ablation import table
    from analysis.tables.text import to_text

    ending = options.out.suffix[1:] if options.out else ""
    if options.format is None and ending and ending not in FORMATS:
        raise UserError(f"--out {options.out}: no format .{ending}; there are {', '.join(FORMATS)}, or give --format")
    columns = options.columns.split(",") if options.columns else None
    made = table(*load_study(options), error=options.error, columns=columns, rows=options.rows)
    style = options.format or (ending if ending in FORMATS else "txt")
    if style == "txt" and options.out is None and sys.stdout.isatty():
        write_out(to_text(made, shutil.get_terminal_size().columns), None)
    else:
        write_out(write(made, style), options.out)
    return 0
