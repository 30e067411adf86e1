"""Uncertainty of means over a few seeds or replicates: error bars and rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def finest_decimals(samples: int) -> int:
    """Decimals of a score in per cent that has the first digit of one sample."""
    return max(math.ceil(math.log10(max(samples, 1) / 100)), 0)


def column_decimals(spreads: Sequence[float], samples: int) -> int:
    """One precision for a column in per cent: PDG's for the median spread, but no finer than one of `samples`."""
    finest = finest_decimals(samples)
    positive = [spread for spread in spreads if spread > 0]
    return min(max(pdg_decimals(median(positive)), 0), finest) if positive else finest
