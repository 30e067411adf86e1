"""False alarms, power and coverage of the two-way test over replicates: `python benchmarks/false_alarms.py`.

Differences of two rows are drawn as group folds give them: noise per replicate, an effect of each test group, and noise
of each group in each replicate. No network is trained. The test is the table's own (`analysis.stats.paired`).
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from analysis.stats.paired import two_way_variance

DESIGNS = (
    (8, 8, 2, 0),
    (8, 8, 2, 2),
    (8, 8, 4, 2),
    (8, 8, 4, 4),
    (8, 4, 4, 0),
    (8, 4, 4, 4),
    (40, 5, 3, 0),
    (40, 8, 2, 4),
)
"""Groups, folds, repeats, and the SD of the effect between groups in points."""
PER_REPLICATE, PER_CELL = 2.5, 3.0
"""SDs in points."""


def simulate(
    design: tuple[int, int, int, float], difference: float, studies: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Share of studies with p < .05, and of 95 % intervals that contain the true difference."""
    groups, folds, repeats, between = design
    parts = [part for _ in range(repeats) for part in np.array_split(rng.permutation(groups), folds)]
    tested = np.zeros((len(parts), groups), bool)
    for replicate, part in enumerate(parts):
        tested[replicate, part] = True
    share = tested / tested.sum(1, keepdims=True)
    size = (studies, len(parts), groups)
    drawn = difference + rng.normal(0, PER_REPLICATE, (*size[:2], 1)) + rng.normal(0, between, (studies, 1, groups))
    contributions = share * (drawn + rng.normal(0, PER_CELL, size))
    mean = contributions.sum(-1).mean(-1)
    cells = (contributions - share * mean[:, None, None]) / len(parts)
    error = np.sqrt(two_way_variance(cells, tested))
    freedom = min(len(parts), groups) - 1
    rejected = 2 * stats.t.sf(abs(mean) / error, freedom) < 0.05
    covered = abs(mean - difference) <= stats.t.ppf(0.975, freedom) * error
    return float(rejected.mean()), float(covered.mean())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=4000)
    studies, rng = parser.parse_args().studies, np.random.default_rng(0)
    table = Table(
        "groups, folds x repeats, SD between groups", "false alarms", "power, 2 points", "4 points", "coverage"
    )
    for design in DESIGNS:
        results = [simulate(design, difference, studies, rng) for difference in (0.0, 2.0, 4.0)]
        groups, folds, repeats, between = design
        rates = [f"{rejected:.3f}" for rejected, _ in results]
        table.add_row(f"{groups}, {folds} x {repeats}, {between}", *rates, f"{min(c for _, c in results):.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
