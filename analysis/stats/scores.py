"""The scores of a study's rows: means over seeds or replicates, ranks, ties with the best, differences to the control.

The unit of a row with replicates is the replicate, whose value is the mean of its final runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.loading.frames import Floats
from analysis.loading.replicate_runs import scored
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns
from analysis.stats.equivalence import equivalence_p
from analysis.stats.error_bars import Error
from analysis.stats.paired import Paired, tied_replicates
from analysis.stats.replicates import METRICS, compared_scores, have_same_splits, tests_to_control
from analysis.stats.significance import holm, tied_with_best, welch
from analysis.stats.uncertainty import half_width


@dataclass(frozen=True)
class Difference:
    """A row's mean minus the control's in points, its 95 % interval (of this one comparison), p, and p corrected for
    all rows that are compared. None where there are too few seeds or replicates.

    Over replicates also the `effect` size (Cohen's d of pairs: the mean difference in SDs of the differences) and the
    `correlation` of the pairs. `error` and `freedom` are those of its t; `equivalence` is the p, corrected likewise, of
    two one-sided tests that it is smaller than a margin, where one was given.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    corrected: float | None = None
    effect: float | None = None
    correlation: float | None = None
    error: float | None = None
    freedom: float | None = None
    equivalence: float | None = None


@dataclass(frozen=True)
class Score:
    """One value, the sample SD of the `n` values that it is the mean of, and how many were `wanted`.

    `error` is shown behind ±. `rank` is 1 for the best and 2 for the second among the students that are compared;
    `tied` is True if the row is not significantly different from the best; None where it is not compared, or
    `is_untested`: too few values, of it or of the best, for a test. `difference` is that to the row's own control,
    `to_study_control` that to the study's, not corrected; `over_samples` is `difference` over other test samples.
    """

    value: float | None = None
    spread: float | None = None
    n: int | None = None
    wanted: int | None = None
    error: float | None = None
    rank: int | None = None
    tied: bool | None = None
    is_untested: bool = False
    difference: Difference | None = None
    to_study_control: Difference | None = None
    over_samples: Difference | None = None


def mean_score(wanted: pd.DataFrame, column: str, error: Error) -> Score:
    """The mean over the runs that have a score, in per cent; `wanted` has one line for each wanted run."""
    return mean_of(percents(scored(wanted), column), len(wanted), error)


def mean_of(values: Floats, wanted: int, error: Error) -> Score:
    """The mean of the known values of `wanted` ones; NaN is not known."""
    values = values[~np.isnan(values)]
    if not len(values):
        return Score(n=0, wanted=wanted)
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    shown = None if sd is None else float(half_width(sd, len(values), error))
    return Score(float(values.mean()), sd, len(values), wanted, shown)


def percents(measured: pd.DataFrame, column: str) -> Floats:
    """The values of runs that have a score, in per cent; without those that are NaN, which a check names."""
    return np.asarray(100 * measured[column].dropna().to_numpy(np.float64))


def row_score(row: RowRuns, column: str, error: Error) -> Score:
    """The mean over a row's replicates, or over the final runs of its only one, in per cent."""
    if row.is_replicated:
        return mean_of(100 * np.array(row.means(column)), len(row.replicates), error)
    return mean_score(row.final_runs, column, error)


def family_score(family: pd.DataFrame, column: str, error: Error, *, replicated: bool) -> Score:
    """The mean over teachers, or over replicates of the mean of each one's teachers, in per cent."""
    if not replicated:
        return mean_score(family, column, error)
    means = scored(family).groupby("replicate")[column].mean()
    return mean_of(100 * means.to_numpy(np.float64), family["replicate"].nunique(), error)


def score_rows(
    runs: Runs, rows: Sequence[RowRuns], control: RowRuns | None, error: Error, margin: float | None = None
) -> Mapping[str, Mapping[str, Score]]:
    """By metric and name of the row: the cell of every row, with its rank, tie and differences where it is compared.

    `control` is the study's, which says what is comparable; differences are to each row's own control. `margin`
    (points) asks for tests of equivalence.
    """
    members = comparable(rows, control)
    made = {}
    for metric in METRICS:
        cells = {row.spec.name: row_score(row, f"test_{metric}", error) for row in rows}
        known = [row for row in members if cells[row.spec.name].value is not None]
        values = {row.spec.name: float(cells[row.spec.name].value or 0.0) for row in known}
        differences, to_study_control, ties = _tests(runs, known, control, metric, margin)
        best_first = sorted(set(values.values()), reverse=True)
        for name, value in values.items():
            place = best_first.index(value) + 1
            rank = place if place < 3 and len(values) > 1 else None
            tied = ties.get(name)
            cells[name] = replace(
                cells[name],
                rank=rank,
                tied=tied,
                is_untested=len(values) > 1 and tied is None,
                difference=differences.get(name),
                to_study_control=to_study_control.get(name),
            )
        made[metric] = cells
    return made


def _tests(
    runs: Runs, members: Sequence[RowRuns], control: RowRuns | None, metric: str, margin: float | None
) -> tuple[dict[str, Difference], dict[str, Difference], dict[str, bool | None]]:
    """Differences to each row's control, corrected by Holm, and to the study's; which rows are tied with the best."""
    named = {row.spec.name: row for row in members}
    own = {name: row.control for name, row in named.items()}
    common = {name: control.spec.name for name, row in named.items() if control is not None and row is not control}
    if any(row.is_replicated for row in members):
        scores = compared_scores(runs, named, metric)
        found, to_study_control = (
            {name: as_difference(test) for name, test in tests_to_control(scores, controls).items()}
            for controls in (own, common)
        )
        tied = tied_replicates(list(scores.values()))
    else:
        values = {name: percents(row.measured, f"test_{metric}") for name, row in named.items()}
        found, to_study_control = (
            {n: difference_of(values[n], values[other]) for n, other in controls.items() if other in values}
            for controls in (own, common)
        )
        tied = tied_with_best(list(values.values())) if len(values) > 1 else []
    known = {name: difference.p for name, difference in found.items() if difference.p is not None}
    corrected = dict(zip(known, holm(list(known.values())), strict=True))
    within = {} if margin is None else _equivalent(found, margin)
    differences = {
        name: replace(difference, corrected=corrected.get(name), equivalence=within.get(name))
        for name, difference in found.items()
    }
    return differences, to_study_control, dict(zip(named, tied, strict=True)) if len(named) > 1 else {}


def _equivalent(found: Mapping[str, Difference], margin: float) -> dict[str, float]:
    """p of tests of equivalence, corrected by Holm."""
    p = {
        name: equivalence_p(one.value, one.error, one.freedom, margin)
        for name, one in found.items()
        if one.error and one.freedom is not None  # an error of 0: the same difference in all, nothing to test by
    }
    return dict(zip(p, holm(list(p.values())), strict=True))


def comparable(rows: Sequence[RowRuns], control: RowRuns | None) -> list[RowRuns]:
    """The rows that are ranked and tested: finished ones on the control's data, divided as for the control.

    Without a control all must be on the same data, else none is compared.
    """
    finished = [row for row in rows if not row.status]
    measure = finished if control is None or control.row is None else [control]
    data = {row.fact("fingerprint") for row in measure}
    return [
        row
        for row in finished
        if {row.fact("fingerprint")} == data and all(have_same_splits(row, other) for other in measure)
    ]


def difference_of(a: Floats, b: Floats) -> Difference:
    """The mean of `a` less that of `b`, by Welch's test; p is not corrected."""
    test = welch(a, b)
    return Difference(
        float(test.difference),
        _known(test.low),
        _known(test.high),
        _known(test.p),
        error=_known(test.error),
        freedom=_known(test.freedom),
    )


def as_difference(test: Paired) -> Difference:
    """The difference of a paired test; p is not corrected."""
    low, high = test.interval
    return Difference(
        test.difference,
        _known(low),
        _known(high),
        _known(test.p),
        effect=_known(test.effect),
        correlation=_known(test.correlation),
        error=_known(test.error),
        freedom=test.freedom,
    )


def _known(value: Floats | float) -> float | None:
    return None if np.isnan(value) else float(value)
