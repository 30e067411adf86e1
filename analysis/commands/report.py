"""`python -m analysis report`: all about studies in one HTML file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.commands.options import Subparsers, add_cache, add_root, check_out, tell, write_out
from analysis.figure_list import FIGURES
from mmkd.errors import UserError

if TYPE_CHECKING:
    from analysis.loading.runs import Runs
    from analysis.tables.model import Table


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "report",
        help="all about studies in one HTML file",
        description="Tables with their warnings, comparisons, figures, provenance and every trial's configuration "
        "in one HTML file that needs nothing from elsewhere.",
    )
    add_root(parser)
    parser.add_argument("--study", nargs="+", metavar="NAME", help="which (default: all, and rows in no study)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--figures",
        nargs="*",
        choices=FIGURES,
        default=tuple(FIGURES),
        metavar="NAME",
        help=f"some of {', '.join(FIGURES)}, or none (default: all)",
    )
    parser.add_argument(
        "--efficiency", action="store_true", help="also measure the networks' cost in use, now and on this machine"
    )
    add_cache(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the report."""
    from analysis.loading.runs import load
    from analysis.report import report

    if options.out.suffix not in (".html", ".htm"):
        raise UserError(f"--out {options.out}: the report is an HTML file: let its name end in .html")
    check_out(options.out)
    runs = load(options.root, cache=options.cache)
    costs = _costs(runs) if options.efficiency else None
    text = report(runs, options.study, kinds=options.figures, costs=costs, tell=tell)
    write_out(text, options.out)
    print(f"wrote {options.out} ({len(text.encode()) / 1e6:.1f} MB)")
    return 0


def _costs(runs: Runs) -> Callable[[str], Table]:
    """Measures a study's networks as `python -m analysis efficiency` does by default."""
    import torch

    from analysis.networks.inference_table import efficiency, to_table

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return lambda study: to_table(
        efficiency(runs, study, device, torch.get_num_threads(), 2.0, lambda what: tell(f"measuring {what}"))
    )
