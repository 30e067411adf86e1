"""`python -m analysis export-runs`: a root's runs for an experiment tracker."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from types import ModuleType

from analysis.commands.options import Subparsers, load_root, new_command
from mmkd.command import study_name
from mmkd.errors import UserError
from mmkd.formatting import count
from mmkd.steps import show_steps
from mmkd.terminal import printable

TRACKERS = ("tensorboard", "mlflow", "wandb")
"""Modules of `analysis.trackers`, named after the package that each needs and the extra that installs it."""


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = new_command(
        subparsers,
        "export-runs",
        run,
        study=False,
        help="write a root's runs for TensorBoard, MLflow or Weights & Biases",
        description="Write every tuning trial, final run and teacher to a tracker's files, during or after a study. "
        "If run again, it adds only what is new. It uses no network. See docs/trackers.md.",
    )
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="directory of the tracker's files; created if absent"
    )
    parser.add_argument("--to", choices=TRACKERS, required=True, help="the tracker")
    parser.add_argument(
        "--study", type=study_name, metavar="NAME", help="only the runs of this study (default: the whole root)"
    )


def run(options: argparse.Namespace) -> int:
    """Export the runs and print a summary."""
    tracker = _tracker(options.to)
    from analysis.trackers.tracked_run import tracked_runs
    from mmkd.records import read_study

    runs = load_root(options)
    if options.study is not None:
        read_study(options.root, options.study)  # raises before anything is written
    total = written = 0
    with tracker.exporter(options.directory) as export, show_steps() as tell:
        for tracked in tracked_runs(runs, options.study):
            total += 1
            tell(f"{count(total, 'run')} of at most {len(runs.trials):,}")
            written += export(tracked)
    print(printable(f"{count(total, 'run')} in {options.directory}: {written} new or extended"))
    if len(runs.rejected):
        print(f"{count(len(runs.rejected), 'path')} left out: mmkd doctor says why")
    print(printable(f"view: {tracker.VIEW.format(directory=options.directory.absolute())}"))
    return 0


def _tracker(name: str) -> ModuleType:
    """The tracker's module.

    Raises:
        UserError: the tracker's package is not installed.
    """
    try:
        return import_module(f"analysis.trackers.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name:
            raise
        raise UserError(f"--to {name}: {name} is not installed; pip install 'mmkd[{name}]'") from None
