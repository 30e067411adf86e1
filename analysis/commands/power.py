"""`python -m analysis power`: what a study could detect, and what a wanted difference takes."""

from __future__ import annotations

import argparse
import json
import math
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
        help="show the difference that a study could detect, and the replicates and hours that another takes",
        description="Show the difference between a row and its control that the study could detect with power .8, and "
        "the replicates, seeds and hours that another difference takes. Spread and cost come from finished runs.",
    )
    parser.add_argument(
        "--effect", type=_positive, default=2.0, metavar="POINTS", help="difference to detect (default: %(default)g)"
    )
    parser.add_argument("--rows", type=_rows, metavar="N", help="number of rows in the table (default: the study's)")


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
    values = asdict(found, dict_factory=_finite)
    text = forecast_text(found) if style == "txt" else json.dumps(values, indent=1, allow_nan=False) + "\n"
    write_out(text, options.out)
    return 0


def _finite(items: list[tuple[str, object]]) -> dict[str, object]:
    """A dataclass as JSON has it: None for what is not known or infinite."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in items}
