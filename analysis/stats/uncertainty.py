"""Uncertainty of means over a few seeds: error bars, rounding, minimum detectable difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from analysis.loading.frames import Floats
from analysis.stats.error_bars import Error

ALPHA, POWER = 0.05, 0.8


def half_width(sd: ArrayLike, n: ArrayLike, error: Error) -> Floats:
    """The value behind the ± of a mean of `n` values (two or more) with sample standard deviation `sd`."""
    if error == "sd":
        return np.asarray(sd, np.float64)
    sem = np.asarray(sd, np.float64) / np.sqrt(n)
    return sem if error == "sem" else sem * stdtrit(np.asarray(n) - 1, 1 - ALPHA / 2)


def pdg_decimals(spread: float) -> int:
    """Decimals to round a positive uncertainty to, by the Particle Data Group's rule.

    Two significant digits where its first three are 100 to 354, one for 355 to 949, and 950 to 999 become 1000 with
    two: 0.123 -> 2, 0.42 -> 1, 0.97 -> 1 (1.0).
    """
    exponent = math.floor(math.log10(spread))
    digits = round(spread / 10.0 ** (exponent - 2))
    return 1 - exponent if digits < 355 else -exponent


def column_decimals(spreads: Sequence[float], samples: int) -> int:
    """One precision for a column in per cent: PDG's for the median spread, but no finer than one of `samples`."""
    finest = max(math.ceil(math.log10(max(samples, 1) / 100)), 0)
    positive = [spread for spread in spreads if spread > 0]
    return min(max(pdg_decimals(median(positive)), 0), finest) if positive else finest


@dataclass(frozen=True)
class MinimumDetectable:
    """The minimum detectable difference of two rows of `n` seeds with power .8, given their pooled SD."""

    n: int
    pooled: float
    difference: float


def minimum_detectable_difference(groups: Sequence[tuple[int, float]]) -> MinimumDetectable | None:
    """(t.975 + t.80) s sqrt(2 / n), t with 2n - 2 degrees of freedom: a two-sided test at the 5 % level.

    Args:
        groups: seeds and sample SD of each row. n is the fewest seeds of a row that has two or more.

    Returns:
        None where no row has two seeds.
    """
    usable = [(n, spread) for n, spread in groups if n >= 2]
    if not usable:
        return None
    pooled = math.sqrt(sum((n - 1) * s**2 for n, s in usable) / sum(n - 1 for n, _ in usable))
    fewest = min(n for n, _ in usable)
    freedom = 2 * fewest - 2
    quantiles = float(stdtrit(freedom, 1 - ALPHA / 2) + stdtrit(freedom, POWER))
    return MinimumDetectable(fewest, pooled, quantiles * pooled * math.sqrt(2 / fewest))
