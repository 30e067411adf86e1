"""The scores of a study's rows: means over seeds, ranks, ties with the best, differences to the control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.loading.frames import Floats
from analysis.loading.study_rows import RowRuns, scored
from analysis.stats.error_bars import Error
from analysis.stats.significance import holm, tied_with_best, welch
from analysis.stats.uncertainty import half_width

METRICS = ("accuracy", "weighted_f1", "macro_f1")
"""Shown with their spread and compared; higher is better for all of them."""


@dataclass(frozen=True)
class Difference:
    """A row's mean minus the control's in points, its 95 % interval (of this one comparison), p, and p corrected for
    all rows that are compared. None where there are too few seeds."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    corrected: float | None = None


@dataclass(frozen=True)
class Score:
    """One value, the sample SD of the `n` values that it is the mean of, and how many were `wanted`.

    `error` is shown behind ±. `rank` is 1 for the best and 2 for the second among the students that are compared;
    `tied` is True if the row is not significantly different from the best (None: not tested).
    """

    value: float | None = None
    spread: float | None = None
    n: int | None = None
    wanted: int | None = None
    error: float | None = None
    rank: int | None = None
    tied: bool | None = None
    difference: Difference | None = None


def mean_score(wanted: pd.DataFrame, column: str, error: Error) -> Score:
    """The mean over the runs that have a score, in per cent; `wanted` has one line for each wanted run."""
    return mean_of(percents(scored(wanted), column), len(wanted), error)


def mean_of(values: Floats, wanted: int, error: Error) -> Score:
    """The mean of the known values of `wanted` ones."""
    if not len(values):
        return Score(n=0, wanted=wanted)
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    shown = None if sd is None else float(half_width(sd, len(values), error))
    return Score(float(values.mean()), sd, len(values), wanted, shown)


def percents(measured: pd.DataFrame, column: str) -> Floats:
    """The values of runs that have a score, in per cent."""
    return np.asarray(100 * measured[column].to_numpy(np.float64))


def score_rows(rows: Sequence[RowRuns], control: RowRuns | None, error: Error) -> Mapping[str, Mapping[str, Score]]:
    """By metric and name of the row: the cell of every row, with its rank, tie and difference where it is compared."""
    members = comparable(rows, control)
    made = {}
    for metric in METRICS:
        found = {row.spec.name: percents(row.measured, f"test_{metric}") for row in rows}
        cells = {row.spec.name: mean_of(found[row.spec.name], len(row.final_runs), error) for row in rows}
        values = {row.spec.name: found[row.spec.name] for row in members}
        differences = _differences(values, control.spec.name if control else "")
        ties = dict(zip(values, tied_with_best(list(values.values())), strict=True)) if len(values) > 1 else {}
        best_first = sorted({float(sample.mean()) for sample in values.values()}, reverse=True)
        for name, sample in values.items():
            place = best_first.index(float(sample.mean())) + 1
            rank = place if place < 3 and len(values) > 1 else None
            cells[name] = replace(cells[name], rank=rank, tied=ties.get(name), difference=differences.get(name))
        made[metric] = cells
    return made


def comparable(rows: Sequence[RowRuns], control: RowRuns | None) -> list[RowRuns]:
    """The rows that are ranked and tested: finished ones on the control's data.

    Without a control all must be on the same data, else none is compared.
    """
    finished = [row for row in rows if not row.status]
    measure = finished if control is None or control.row is None else [control]
    data = {row.fact("fingerprint") for row in measure}
    return [row for row in finished if {row.fact("fingerprint")} == data]


def _differences(values: Mapping[str, Floats], control: str) -> dict[str, Difference]:
    """Each row's difference to the control, with Holm's correction over these rows."""
    if control not in values:
        return {}
    found = {name: difference_of(sample, values[control]) for name, sample in values.items() if name != control}
    known = {name: difference.p for name, difference in found.items() if difference.p is not None}
    corrected = dict(zip(known, holm(list(known.values())), strict=True))
    return {name: replace(difference, corrected=corrected.get(name)) for name, difference in found.items()}


def difference_of(a: Floats, b: Floats) -> Difference:
    """The mean of `a` less that of `b`, by Welch's test; p is not corrected."""
    test = welch(a, b)
    low, high, p = (None if np.isnan(value) else float(value) for value in (test.low, test.high, test.p))
    return Difference(float(test.difference), low, high, p)
