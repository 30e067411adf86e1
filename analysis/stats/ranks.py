"""Ranks of rows over data sets: Friedman's test, and a post-hoc test of each row against its control.

Source: Demšar, Statistical comparisons of classifiers over multiple data sets (2006).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc, ndtr
from scipy.stats import rankdata

from analysis.loading.frames import Floats
from analysis.stats.significance import holm

FEWEST = 6
"""Data sets from which on ranks are tested. With 5, a row that beats another on each has p = 2 / 2^5 = .06."""


@dataclass(frozen=True)
class Ranking:
    """Ranks of k rows on N data sets, 1 for the best score.

    Attributes:
        means: (k,) mean ranks.
        p: of Friedman's test, by the F distribution of Iman and Davenport (1980); NaN where it is not made.
        against: by the number of a row the p of its mean rank against its control's, corrected by Holm.
    """

    means: Floats
    p: float
    against: Mapping[int, float]


def rank_rows(scores: Sequence[Sequence[float]], controls: Mapping[int, int]) -> Ranking:
    """Rank rows on each data set, and test the ranks if there are `FEWEST` data sets or more.

    Args:
        scores: (N, k) higher is better; equal scores share their mean rank.
        controls: the number of a row's control by that of the row.
    """
    ranks = np.array([rankdata(-np.asarray(line)) for line in scores])
    (sets, rows), means = ranks.shape, ranks.mean(axis=0)
    if sets < FEWEST or rows < 2:
        return Ranking(means, math.nan, {})
    between = sets * float(np.sum((means - (rows + 1) / 2) ** 2))
    within = float(np.sum((ranks - (rows + 1) / 2) ** 2)) - between
    freedom = (rows - 1, (rows - 1) * (sets - 1))
    p = float(fdtrc(*freedom, (between / freedom[0]) / (within / freedom[1]))) if within > 0 else float(between == 0)
    error = math.sqrt(rows * (rows + 1) / (6 * sets))
    raw = {row: float(2 * ndtr(-abs(means[row] - means[control]) / error)) for row, control in controls.items()}
    return Ranking(means, p, dict(zip(raw, holm(list(raw.values())), strict=True)))
