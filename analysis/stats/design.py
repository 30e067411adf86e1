"""The difference that a study of a given size could detect, from the spread of finished replicates or seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.stats.paired import Paired
from analysis.stats.power import paired_noncentrality, paired_power, welch_noncentrality, welch_power

MOST = 10_000
"""The most replicates or seeds that are considered."""


@dataclass(frozen=True)
class ReplicateSpread:
    """Variances of the difference of a row and its control, in squared points.

    Attributes:
        noise: between replicates, of what more replicates average out.
        seed: between final runs of one replicate, a part of `noise` divided by `seeds`; NaN with one seed.
        group: of the mean over all test groups, which replicates do not average out; 0 where the test part is fixed.
        groups: test groups of the data; 0 where the test part is fixed.
        tested: test groups of one replicate.
        seeds, replicates, differences: those that the variances were estimated from.
    """

    noise: float
    seed: float
    group: float
    groups: int
    tested: float
    seeds: int
    replicates: int
    differences: int

    @property
    def step(self) -> int:
        """Replicates that test each group once."""
        return max(round(self.groups / self.tested), 1) if self.groups else 1

    def groups_in(self, replicates: int) -> int:
        """Test groups that so many replicates test."""
        return min(self.groups, round(self.tested * replicates))

    def freedom(self, replicates: int) -> int:
        """Degrees of freedom of the table's test."""
        return (min(replicates, self.groups_in(replicates)) if self.groups else replicates) - 1

    def error(self, replicates: int, seeds: int) -> float:
        """Standard error of a difference in so many replicates of so many seeds."""
        noise = self.noise
        if not math.isnan(self.seed):
            noise = max(noise - self.seed / self.seeds, 0.0) + self.seed / seeds
        group = self.group * self.groups / self.groups_in(replicates) if self.groups else 0.0
        return math.sqrt(group + noise / replicates)

    def detectable(self, replicates: int, seeds: int, level: float) -> float:
        """Smallest true difference found with power .8, in points; infinite with too few replicates."""
        freedom = self.freedom(replicates)
        return paired_noncentrality(freedom, level) * self.error(replicates, seeds) if freedom > 0 else math.inf

    def power(self, effect: float, replicates: int, seeds: int, level: float) -> float:
        """Probability of finding a true difference of `effect` points."""
        freedom = self.freedom(replicates)
        return paired_power(effect / self.error(replicates, seeds), freedom, level) if freedom > 0 else 0.0

    def needed(self, effect: float, seeds: int, level: float) -> int | None:
        """The fewest replicates that find `effect` points with power .8, all groups tested equally often; None if
        no number does."""
        tries = _first(lambda n: self.detectable(n * self.step, seeds, level) <= effect, MOST // self.step)
        return None if tries is None else tries * self.step

    def bound(self, seeds: int, level: float) -> float:
        """The limit that test groups set: the smallest difference that any number of replicates detects, in points."""
        return self.detectable(MOST, seeds, level)


@dataclass(frozen=True)
class SeedSpread:
    """Variance between final runs of one tuned row, in squared points, pooled over `rows` of `seeds` or more."""

    variance: float
    seeds: int
    rows: int

    def detectable(self, seeds: int, level: float) -> float:
        """Smallest true difference of two tuned configurations found with power .8, in points."""
        return welch_noncentrality(seeds, level) * self.error(seeds) if seeds > 1 else math.inf

    def error(self, seeds: int) -> float:
        """Standard error of a difference."""
        return math.sqrt(2 * self.variance / seeds)

    def power(self, effect: float, seeds: int, level: float) -> float:
        """Probability of finding a true difference of `effect` points."""
        return welch_power(effect / self.error(seeds), seeds, level) if seeds > 1 else 0.0

    def needed(self, effect: float, level: float) -> int | None:
        """The fewest seeds that find `effect` points with power .8."""
        return _first(lambda n: self.detectable(n, level) <= effect, MOST)


def _first(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest number from 1 to `most` that is enough, where all larger ones are."""
    if not enough(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def spread_of_replicates(
    tests: Sequence[Paired], seed: float, seeds: int, groups: int, tested: float
) -> ReplicateSpread:
    """Pool the variances of tests over replicates, so that for their own number the error is the table's.

    Args:
        tests: those of the rows with their controls, with an error each.
        seed: see `ReplicateSpread`.
        seeds: final runs of each replicate.
        groups: test groups of the data, 0 where the test part is fixed.
        tested: test groups of one replicate.
    """
    floors = [0.0 if test.shares is None else test.shares.floor**2 for test in tests]
    rests = [0.0 if test.shares is None else test.shares.rest**2 / max(tested, 1.0) for test in tests]
    numbers = [len(test.differences) for test in tests]
    noise = [
        max((test.error**2 - floor) * number, rest)
        for test, floor, rest, number in zip(tests, floors, rests, numbers, strict=True)
    ]
    replicates = min(numbers)
    covered = min(groups, round(tested * replicates)) / groups if groups else 1.0
    floor = float(np.mean(floors)) * covered
    return ReplicateSpread(float(np.mean(noise)), seed, floor, groups, tested, seeds, replicates, len(tests))
