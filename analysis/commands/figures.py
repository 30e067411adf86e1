"""`python -m analysis figures`: a study's figures, for a paper."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.commands.options import Subparsers, load_study, new_command
from analysis.figure_list import FIGURES, FORMATS
from mmkd.errors import UserError
from mmkd.terminal import printable


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = new_command(
        subparsers,
        "figures",
        run,
        help="a study's figures",
        description="See docs/figures.md. Figures that cannot be drawn are listed; exit code 1 if none can.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="made if it is not there")
    parser.add_argument("--format", choices=FORMATS, default="pdf", help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=FIGURES, metavar="NAME", help=f"some of {', '.join(FIGURES)}")


def run(options: argparse.Namespace) -> int:
    """Write the figures and print one line per figure; 1 if none can be drawn."""
    from analysis.figures.all_figures import plan
    from analysis.figures.style import save
    from mmkd.records import read_study

    runs, study = load_study(options)
    read_study(runs.root, study)  # raises before there is a directory
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {options.out}: {error.strerror}") from None
    written = 0
    for kind in options.only or FIGURES:
        for planned in plan(runs, study, kind):
            path = options.out / f"{planned.name}.{options.format}"
            try:
                drawn = planned.draw()
            except UserError as error:
                print(printable(f"not drawn: {planned.name}: {error}"), flush=True)
                continue
            try:
                save(drawn.figure, path)
            except OSError as error:
                raise UserError(f"{path}: {error.strerror}") from None
            written += 1
            said = f"wrote {path}" + "".join(f"\n  without {reason}" for reason in drawn.left_out)
            print(printable(said), flush=True)
    return 0 if written else 1
