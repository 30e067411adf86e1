"""The difference of two rows over other test samples, for the very runs that were made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr, stdtrit

from analysis.loading.frames import Floats
from analysis.loading.outcomes import Outcome, outcome
from analysis.loading.replicate_runs import ReplicateRuns
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns
from analysis.stats.scores import Difference
from analysis.stats.uncertainty import ALPHA
from mmkd.result_file import ResultError


def clustered_difference(differences: Floats, groups: Sequence[str]) -> Difference:
    """The mean over samples, its 95 % interval and two-sided p, when groups of samples are drawn again.

    Samples of one group are not independent, so that the groups are the clusters: t with G - 1 degrees of freedom on a
    variance of the groups' sums around the mean. No interval with one group.

    Args:
        differences: (N,) one for each sample, in points.
        groups: (N,) the group of each; empty if every sample is a group.
    """
    mean = float(differences.mean())
    names, places = np.unique(np.array(groups) if groups else np.arange(len(differences)), return_inverse=True)
    if len(names) < 2:
        return Difference(mean)
    sums = np.bincount(places, differences - mean)
    freedom = len(names) - 1
    error = float(np.sqrt(len(names) / freedom * np.sum(sums**2))) / len(differences)
    if not error > 0:
        return Difference(mean)
    half = float(stdtrit(freedom, 1 - ALPHA / 2)) * error
    p = float(2 * stdtr(freedom, -abs(mean) / error))
    return Difference(mean, mean - half, mean + half, p, error=error, freedom=freedom)


def share_right(outcomes: Sequence[Outcome]) -> Floats:
    """(N,) the share of runs that got each sample right, in per cent."""
    return np.asarray(100 * np.mean([found.right for found in outcomes], axis=0))


def difference_over_samples(runs: Runs, row: RowRuns, control: RowRuns) -> Difference | None:
    """The difference of a row to its control over the samples of a test part that all their replicates share.

    Returns:
        it; None where test parts differ, the two have no replicate in common, or a result is damaged, which `doctor`
        reports.
    """
    theirs = {one.spec.replicate: one for one in control.replicates if len(one.measured)}
    pairs = [
        (one, theirs[one.spec.replicate])
        for one in row.replicates
        if len(one.measured) and one.spec.replicate in theirs
    ]
    if not pairs:
        return None
    try:
        found = [[_outcomes(runs, side) for side in pair] for pair in pairs]
    except ResultError:
        return None
    first = found[0][0][0]
    if {run.samples for pair in found for side in pair for run in side} != {first.samples}:
        return None
    differences = np.mean([share_right(ours) - share_right(others) for ours, others in found], axis=0)
    return clustered_difference(differences, first.groups)


def _outcomes(runs: Runs, one: ReplicateRuns) -> list[Outcome]:
    return [outcome(runs, directory) for directory in one.measured["directory"]]


def count_test_groups(runs: Runs, rows: Sequence[RowRuns]) -> int:
    """Groups of the test samples of the first run that was measured; 0 if the data have none."""
    first = next((row.measured["directory"].iloc[0] for row in rows if len(row.measured)), None)
    return 0 if first is None else len(set(outcome(runs, first).groups))
