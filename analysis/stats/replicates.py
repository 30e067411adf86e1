"""The scores of a row by replicate, and by test group where replicates have different test samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.loading.frames import Floats
from analysis.loading.outcomes import Outcome, outcome
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns
from analysis.stats.paired import Paired, Replicated, paired
from mmkd.metrics import f1_scores

METRICS: Mapping[str, Callable[[Outcome, np.ndarray], float]] = {
    "accuracy": lambda found, kept: float(found.right[kept].mean()),
    "weighted_f1": lambda found, kept: f1_scores(found.predicted[kept], found.labels[kept], found.classes)[0],
    "macro_f1": lambda found, kept: f1_scores(found.predicted[kept], found.labels[kept], found.classes)[1],
}
"""A score of the samples that a mask keeps; shown with their spread and compared, higher is better for all of them."""


def have_same_splits(a: RowRuns, b: RowRuns) -> bool:
    """True if the replicates that both rows have are divided alike."""
    theirs = {one.spec.replicate: one.fact("split") for one in b.replicates if one.facts is not None}
    ours = {one.spec.replicate: one.fact("split") for one in a.replicates if one.facts is not None}
    return all(split == theirs[number] for number, split in ours.items() if number in theirs)


def has_several_test_parts(runs: Runs, rows: Iterable[RowRuns]) -> bool:
    """True if replicates of these rows were tested on different samples, and the samples have groups."""
    drawn = [one for row in rows for one in row.replicates if one.fact("split") and len(one.measured)]
    found = [outcome(runs, one.measured["directory"].iloc[0]) for one in drawn]
    return len({found_of_one.samples for found_of_one in found}) > 1 and all(one.groups for one in found)


def compared_scores(runs: Runs, rows: Mapping[str, RowRuns], metric: str) -> dict[str, Replicated]:
    """The scores (per cent) of rows, by their names, in the replicates that have one; rows without any are left out.

    They have parts by test group if replicates were tested on different samples.
    """
    column = f"test_{metric}"
    done = {name: [one for one in row.replicates if one.measured[column].notna().any()] for name, row in rows.items()}
    done = {name: ones for name, ones in done.items() if ones}
    groups: list[str] = []
    if has_several_test_parts(runs, rows.values()):
        tested = (outcome(runs, one.measured["directory"].iloc[0]) for ones in done.values() for one in ones)
        groups = sorted({group for found in tested for group in found.groups})
    return {
        name: _replicated(runs, {one.spec.replicate: one.measured for one in ones}, metric, groups)
        for name, ones in done.items()
    }


def tests_to_control(scores: Mapping[str, Replicated], controls: Mapping[str, str | None]) -> dict[str, Paired]:
    """Test each row against its control over the replicates that both have; rows without any are left out.

    Args:
        scores: of the rows, by name.
        controls: the row that each is compared with; None: with none.
    """
    pairs = {
        name: (scores[name], scores[other]) for name, other in controls.items() if other is not None and other in scores
    }
    return {
        name: paired(mine, theirs)
        for name, (mine, theirs) in pairs.items()
        if set(mine.replicates) & set(theirs.replicates)
    }


def teacher_scores(runs: Runs, row: RowRuns, metric: str, groups: Sequence[str]) -> Replicated:
    """The scores (per cent) of a row's teachers, with parts by these test groups, in the replicates that have one."""
    done = {one.spec.replicate: one.measured_teachers for one in row.replicates if len(one.measured_teachers)}
    return _replicated(runs, done, metric, groups)


def _replicated(runs: Runs, done: Mapping[int, pd.DataFrame], metric: str, names: Sequence[str]) -> Replicated:
    """The scores of the runs of each replicate, by its number."""
    values = np.array([100 * float(measured[f"test_{metric}"].mean()) for measured in done.values()])
    parts = np.zeros((2, len(done), len(names)))
    for place, measured in enumerate(done.values() if names else ()):
        by_run = [group_parts(outcome(runs, directory), metric, names) for directory in measured["directory"]]
        parts[:, place] = np.mean(by_run, axis=0)
    return Replicated(tuple(done), values, tuple(names), 100 * parts[0], parts[1])


def group_parts(found: Outcome, metric: str, names: Sequence[str]) -> Floats:
    """Contribution of each group to a score of a run, and its share of the samples: (2, G); contributions sum to it.

    For accuracy: the group's accuracy times its share. For F1, which is no mean over samples, the share of the score
    plus the group's jackknife influence, (1 - share) (score - score without the group); for a mean both are the same.
    """
    groups = np.array(found.groups)
    everything = np.ones(len(groups), bool)
    score = METRICS[metric](found, everything)
    shares, influences = np.zeros(len(names)), np.zeros(len(names))
    for number, name in enumerate(names):
        mine = groups == name
        shares[number] = mine.mean()
        if 0 < shares[number] < 1:
            influences[number] = (1 - shares[number]) * (score - METRICS[metric](found, ~mine))
    return np.stack([shares * (score - influences.sum()) + influences, shares])
