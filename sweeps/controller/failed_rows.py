"""Set aside a row's trials if all of them failed: the error was in the code, which may be fixed by now."""

from __future__ import annotations

import os

from optuna.trial import TrialState

from mmkd.rundir import RowDir
from sweeps.controller.optuna_study import Tuning


def has_only_failures(tuning: Tuning, row: RowDir) -> bool:
    """True if all trials of a row failed without a result."""
    states = {trial.state for trial in tuning.trials()}
    return states == {TrialState.FAIL} and not any(trial.result.exists() for trial in row.trials())


def set_aside_failures(row: RowDir, title: str) -> None:
    """Move a row's trials and journal into a new directory, and say so."""
    number = 1 + len(list(row.path.glob("failed-*")))
    aside = row.path / f"failed-{number}"
    aside.mkdir()
    for path in (row.path / "trials", row.journal):
        if path.exists():
            os.replace(path, aside / path.name)
    print(f"row {title}: nothing completed when it last ran; it begins again ({aside} keeps what failed)")
