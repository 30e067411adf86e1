"""`python -m analysis power`: what a study could detect, and what a wanted difference takes."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from analysis.commands.options import Subparsers, load_study, new_command, output_format, write_out
from mmkd.errors import UserError

FORMATS = ("txt", "json")


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = new_command(
        subparsers,
        "power",
        run,
        FORMATS,
        help="show which difference a study could detect, and the replicates, seeds and hours that one takes",
        description="Show which difference of a row and its control the study could detect with power .8, and how many "
        "replicates, seeds and hours a wanted difference takes. Spread and cost are those of finished runs.",
    )
    parser.add_argument(
        "--effect", type=_positive, default=2.0, metavar="POINTS", help="difference asked about (default: %(default)g)"
    )
    parser.add_argument("--rows", type=_rows, metavar="N", help="rows of the table (default: the study's)")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"{text}: give points of accuracy, above 0 and below 100")
    return value


def _rows(text: str) -> int:
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"{text}: a table compares two rows or more")
    return value


def run(options: argparse.Namespace) -> int:
    """Print or write the forecast.

    Raises:
        UserError: there is no such study, or it has too few finished runs.
    """
    from analysis.loading.study_rows import collect
    from analysis.tables.power_forecast import UNKNOWN, forecast, forecast_text

    style = output_format(options, FORMATS)
    runs, study = load_study(options)
    found = forecast(runs, collect(runs, study), options.effect, options.rows)
    if found is None:
        raise UserError(f"study {study}: {UNKNOWN}; launch it with --replicates 3 or more, and ask again")
    text = forecast_text(found) if style == "txt" else json.dumps(asdict(found), indent=1) + "\n"
    write_out(text, options.out)
    return 0
