"""Compute again which finalist of a row won."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from analysis.loading.frames import HYPERPARAMETERS
from analysis.loading.replicate_runs import ReplicateRuns
from mmkd.config import SEEDS_PER_REPLICATE
from mmkd.metrics import lower_is_better


def finalist_means(row: ReplicateRuns, complete: Mapping[int, float], selection: str, best: int) -> dict[int, float]:
    """Return the mean over each finalist's trial and further runs, by the trial's number.

    Finalists with fewer complete runs than another are left out.

    Args:
        row: the replicate of a row.
        complete: the validation metric `selection` of the complete tuning trials, by number.
        selection: the metric.
        best: number of finalists.
    """
    numbers = [int(number) for number in row.values("number", ["tuning"])]
    seeds = dict(zip(numbers, row.values("seed", ["tuning"]), strict=True))
    columns = (row.values(name, ["tuning"]) for name in HYPERPARAMETERS)
    found = zip(*columns, strict=True)
    settings = {n: tuple(x if x == x else None for x in values) for n, values in zip(numbers, found, strict=True)}
    sign = 1 if lower_is_better(selection) else -1
    proposed = [number for number in complete if seeds[number] % SEEDS_PER_REPLICATE == 0]
    finalists = sorted(proposed, key=lambda number: (sign * complete[number], number))[:best]
    runs = {n: [value for m, value in complete.items() if settings[m] == settings[n]] for n in finalists}
    most = max(map(len, runs.values()), default=0)
    return {number: fmean(values) for number, values in runs.items() if len(values) == most}
