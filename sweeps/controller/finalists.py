"""Finalists: the best trials of a row run again on more seeds, and the winner has the best mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from optuna.trial import FrozenTrial, TrialState

from mmkd.metrics import best_trial

ATTRIBUTE = "finalist"
"""Optuna's user attribute of a finalist's run: the number of its trial, and of the run."""


class Finalist(NamedTuple):
    """A further run of a trial; runs are counted from 1."""

    trial: int
    run: int


def finalist_of(trial: FrozenTrial) -> Finalist | None:
    """Return which run of a finalist a trial is; None for one that a sampler proposed."""
    found = trial.user_attrs.get(ATTRIBUTE)
    return None if found is None else Finalist(*map(int, found))


def runs_due(trials: Sequence[FrozenTrial], selection: str, best: int, seeds: int) -> list[Finalist]:
    """Return the runs of the `best` complete trials that have not been sampled."""
    there = {finalist_of(trial) for trial in trials}
    wanted = [Finalist(number, run) for number in _best_trials(trials, selection, best) for run in range(1, seeds + 1)]
    return [finalist for finalist in wanted if finalist not in there]


def winner_of(trials: Sequence[FrozenTrial], selection: str, best: int, seeds: int) -> tuple[FrozenTrial, float] | None:
    """Return the finalist with the best mean over its trial and its runs, and this mean; None without finalists.

    A finalist with a run that failed or diverged wins only if every other has one, too.
    """
    chosen = _best_trials(trials, selection, best)
    values = {number: [value] for number, value in chosen.items()}
    for trial in trials:
        finalist = finalist_of(trial)
        if finalist is None or finalist.trial not in values or finalist.run > seeds:
            continue
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            values[finalist.trial].append(float(trial.value))
    most = max(map(len, values.values()), default=0)
    means = {number: fmean(found) for number, found in values.items() if len(found) == most}
    number = best_trial(selection, means)
    return None if number is None else (trials[number], means[number])


def _best_trials(trials: Sequence[FrozenTrial], selection: str, best: int) -> Mapping[int, float]:
    """The best complete trials that a sampler proposed, by number, with their values."""
    left = {
        trial.number: float(trial.value)
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.value is not None and finalist_of(trial) is None
    }
    chosen: dict[int, float] = {}
    while left and len(chosen) < best:
        number = best_trial(selection, left)
        assert number is not None
        chosen[number] = left.pop(number)
    return chosen
