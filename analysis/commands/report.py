"""`python -m analysis report`: all about studies in one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.commands.options import Subparsers, load_root, new_command, write_out
from analysis.figure_list import FIGURES, IN_REPORT
from mmkd.command import add_force, study_name
from mmkd.files import check_output
from mmkd.steps import show_steps


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = new_command(
        subparsers,
        "report",
        run,
        study=False,
        help="all about studies in one HTML file",
        description="Tables with their warnings, comparisons, figures, provenance and every trial's configuration "
        "in one HTML file that needs nothing from elsewhere.",
    )
    parser.add_argument(
        "--study", type=study_name, nargs="+", metavar="NAME", help="default: all, and rows in no study"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.html")
    add_force(parser)
    parser.add_argument(
        "--figures",
        nargs="*",
        choices=FIGURES,
        default=IN_REPORT,
        metavar="NAME",
        help=f"some of {', '.join(FIGURES)}, or none (default: all but table)",
    )
    parser.add_argument(
        "--efficiency", action="store_true", help="also measure the networks' inference cost, now and on this machine"
    )


def run(options: argparse.Namespace) -> int:
    """Write the report."""
    from analysis.report import report

    check_output(options.out, f"--out {options.out}", (".html", ".htm"), force=options.force)
    runs = load_root(options)
    with show_steps() as tell:
        costs = None
        if options.efficiency:
            from analysis.networks.inference_table import efficiency, to_table

            costs = lambda study: to_table(  # noqa: E731
                efficiency(runs, study, tell=lambda what: tell(f"{study}: measuring {what}"))
            )
        text = report(runs, options.study, kinds=options.figures, costs=costs, tell=tell)
    write_out(text, options.out)
    print(f"wrote {options.out} ({len(text.encode()) / 1e6:.1f} MB)")
    return 0
