"""`python -m analysis figures`: a study's figures, for a paper."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.commands.options import Subparsers, load_study, new_command
from analysis.figure_list import FIGURES, FORMATS
from mmkd.command import add_force
from mmkd.errors import UserError
from mmkd.files import check_output
from mmkd.steps import show_steps
from mmkd.terminal import printable

if TYPE_CHECKING:
    from analysis.figures.all_figures import Planned


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = new_command(
        subparsers,
        "figures",
        run,
        help="draw a study's figures",
        description="Draw a study's figures, one file each; docs/figures.md explains them. Figures that cannot be "
        "drawn are listed with the reason. The exit code is 1 if none can.",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="directory of the files; created if absent"
    )
    add_force(parser)
    parser.add_argument("--format", choices=FORMATS, default="pdf", help="default: %(default)s")
    parser.add_argument(
        "--only", nargs="+", choices=FIGURES, metavar="NAME", help=f"only these of {', '.join(FIGURES)}"
    )


def run(options: argparse.Namespace) -> int:
    """Write the figures and print one line per figure; 1 if none can be drawn."""
    from analysis.figures.all_figures import plan
    from mmkd.records import read_study

    runs, study = load_study(options)
    read_study(runs.root, study)  # raises before there is a directory
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {options.out}: {error.strerror}") from None
    planned = [figure for kind in options.only or FIGURES for figure in plan(runs, study, kind)]
    figures = {options.out / f"{figure.name}.{options.format}": figure for figure in planned}
    for path in figures:
        check_output(path, f"--out {options.out}: {path.name}", force=options.force)
    written = 0
    with show_steps(len(figures)) as tell:
        for path, figure in figures.items():
            tell(f"drawing {figure.name}")
            written += _write(figure, path)
    return 0 if written else 1


def _write(planned: Planned, path: Path) -> bool:
    """Draw a figure and write it. Print the outcome, and return False if it cannot be drawn."""
    from analysis.figures.style import save

    try:
        drawn = planned.draw()
    except UserError as error:
        print(printable(f"not drawn: {planned.name}: {error}"), flush=True)
        return False
    try:
        save(drawn.figure, path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    print(printable(f"wrote {path}" + "".join(f"\n  without {reason}" for reason in drawn.left_out)), flush=True)
    return True
