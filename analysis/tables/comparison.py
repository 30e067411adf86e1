"""Two rows of a study side by side: over their seeds, and over the test samples of their stored predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.loading.predictions import predictions
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect
from analysis.stats.scores import Difference, difference_of, percents
from analysis.stats.significance import (
    PAIRS_NEEDED,
    clustered_mcnemar,
    mcnemar,
    paired_bootstrap,
    probability_of_better,
)
from analysis.tables.checks import check_rows
from mmkd.errors import UserError
from mmkd.formatting import count


@dataclass(frozen=True)
class SeedPair:
    """The runs of both rows that have the same seed: samples that one of them alone got right, McNemar's exact p."""

    seed: int
    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """Test accuracy of row A less that of row B, in points.

    Attributes:
        a, b: the rows' titles.
        seeds_a, seeds_b: how many runs each has; those of the same seed are paired, A's and B's teachers too.
        over_seeds: Welch's t over the seeds: would other seeds say the same, on these test samples?
        samples: how many test samples.
        over_samples: each sample's share of A's runs that got it right, less B's: the mean, its paired bootstrap
            interval over samples, and the p of McNemar's test with the sample as the cluster (Durkalski et al. 2003):
            would other samples say the same, of these very runs? None where the runs have no predictions in common.
        pairs: McNemar's test seed by seed; p not corrected.
        better: P(A > B) over these pairs, a draw counting half.
        warnings: what makes the two rows unlike each other.
    """

    a: str
    b: str
    seeds_a: int
    seeds_b: int
    over_seeds: Difference
    samples: int
    over_samples: Difference
    pairs: tuple[SeedPair, ...]
    better: float | None
    warnings: tuple[str, ...]


def compare(runs: Runs, study: str, a: str, b: str) -> Comparison:
    """Compare two rows of a study, by their names in it.

    Raises:
        UserError: there is no such study or row, a row has no score, or they were measured on different samples.
    """
    found = collect(runs, study)
    first, second = found.row(a), found.row(b)
    for row in (first, second):
        if row.measured.empty:
            raise UserError(f"{row.title}: no score yet ({row.status or 'no seed completed'})")
    ours, theirs = _right(runs, first), _right(runs, second)
    _same_samples(first, ours, second, theirs)
    shares = [np.mean([outcome.right for outcome in of.values()], axis=0) for of in (ours, theirs)]
    differences = 100 * (shares[0] - shares[1])
    low, high = paired_bootstrap(differences)
    shared = [seed for seed in ours if seed in theirs]
    scores = [percents(row.measured, "test_accuracy") for row in (first, second)]
    return Comparison(
        first.title,
        second.title,
        len(scores[0]),
        len(scores[1]),
        difference_of(*scores),
        len(differences),
        Difference(float(differences.mean()), low, high, clustered_mcnemar(differences)),
        tuple(SeedPair(seed, *mcnemar(ours[seed].right, theirs[seed].right)) for seed in shared),
        probability_of_better(*([of[seed].accuracy for seed in shared] for of in (ours, theirs))) if shared else None,
        tuple(finding.text for finding in check_rows(runs, [first, second])),
    )


@dataclass(frozen=True)
class _Outcome:
    """The test samples of a run, and a mask of those that it got right."""

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    right: NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


def _right(runs: Runs, row: RowRuns) -> dict[int, _Outcome]:
    """By seed, which samples each run of a row got right."""
    found = {}
    for seed, directory in row.measured["directory"].items():
        test = predictions(runs.root / directory)["test"]
        right = test.logits.argmax(axis=1) == test.labels
        found[int(str(seed))] = _Outcome(tuple(test.ids), tuple(test.labels.tolist()), right)
    return found


def _same_samples(a: RowRuns, ours: dict[int, _Outcome], b: RowRuns, theirs: dict[int, _Outcome]) -> None:
    """Raises UserError unless all runs were measured on the same samples in the same order."""
    if len({(outcome.ids, outcome.labels) for outcome in (*ours.values(), *theirs.values())}) > 1:
        raise UserError(f"{a.title} and {b.title}: measured on different test samples, nothing can be paired")


def p_value(p: float) -> str:
    """`p = 0.012`, or that it is below a thousandth."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def comparison_text(found: Comparison) -> str:
    """A comparison in a few lines."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Comparison) -> Iterator[str]:
    yield f"A  {found.a} ({count(found.seeds_a, 'seed')})"
    yield f"B  {found.b} ({count(found.seeds_b, 'seed')})"
    seeds, samples = difference_text(found.over_seeds), difference_text(found.over_samples)
    yield "Test accuracy of A minus that of B, in points:"
    yield f"  other seeds?    {seeds}  (Welch's t over seeds, these {found.samples} samples)"
    yield (
        f"  other samples?  {samples}  (paired bootstrap and clustered McNemar over samples, these "
        "runs; samples taken as independent)"
    )
    for pair in found.pairs:
        yield (
            f"  seed {pair.seed}: {pair.only_a} samples right in A alone, {pair.only_b} in B alone, "
            f"{p_value(pair.p)} (McNemar, exact, not corrected)"
        )
    if found.better is not None:
        few = len(found.pairs) < PAIRS_NEEDED
        yield (
            f"  P(A > B) = {found.better:.2f} over {count(len(found.pairs), 'pair')} of runs"
            + (f": indicative only, below {PAIRS_NEEDED} pairs" if few else "")
        )
    yield from (f"WARNING: {warning}" for warning in found.warnings)


def difference_text(found: Difference) -> str:
    """A difference in points, with its interval and p where there are seeds enough."""
    if found.low is None or found.high is None or found.p is None:
        return f"{found.value:+z.2f} (too few seeds for an interval)"
    return f"{found.value:+z.2f} [{found.low:+z.2f}, {found.high:+z.2f}], {p_value(found.p)}"
