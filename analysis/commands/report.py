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
        help="write everything about studies to one HTML file",
        description="Write tables with their warnings, comparisons, figures, provenance and every trial's "
        "configuration to one self-contained HTML file.",
    )
    parser.add_argument(
        "--study",
        type=study_name,
        nargs="+",
        metavar="NAME",
        help="only these studies (default: all, and rows of no study)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.html", help="the file to write")
    add_force(parser)
    parser.add_argument(
        "--figures",
        nargs="*",
        choices=FIGURES,
        default=IN_REPORT,
        metavar="NAME",
        help=f"only these of {', '.join(FIGURES)}; without names, none (default: all except table)",
    )
    parser.add_argument(
        "--efficiency", action="store_true", help="also measure the networks' inference cost on this machine"
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
