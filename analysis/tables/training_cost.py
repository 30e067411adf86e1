"""Training cost of rows: seconds, hours or GPU-hours of their trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.loading.study_rows import RowRuns
from analysis.loading.study_trials import first_lines


@dataclass(frozen=True)
class Clock:
    """The unit of costs in one table: a column of the trials, and its seconds per `unit`."""

    column: str
    seconds: float
    unit: str


def choose_clock(rows: Sequence[RowRuns]) -> Clock:
    """GPU-time where a cluster has counted it for every trial, else the trials' own time; in hours from one hour on."""
    ran = pd.concat([row.trials for row in rows])[["seconds", "gpu_seconds"]].dropna(how="all")
    on_gpus = len(ran) > 0 and bool(ran["gpu_seconds"].notna().all()) and ran["gpu_seconds"].sum() > 0
    column, prefix = ("gpu_seconds", "GPU-") if on_gpus else ("seconds", "")
    totals = [part for row in rows for part in (pd.concat([row.tuning, row.final_runs]), _all_teachers(row))]
    largest = max(spent(part, column) or 0.0 for part in totals)
    return Clock(column, 3600, f"{prefix}hours") if largest >= 3600 else Clock(column, 60, f"{prefix}minutes")


def _all_teachers(row: RowRuns) -> pd.DataFrame:
    return first_lines(pd.concat([row.teachers, row.teacher_trials]))


def spent(runs: pd.DataFrame, column: str) -> float | None:
    """Seconds that these runs have cost, failed ones too; None where none of them says."""
    return float(runs[column].sum()) if runs[column].notna().any() else None
