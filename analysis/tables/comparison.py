"""Two rows of a study side by side: over their seeds, and over the test samples of their stored predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.loading.frames import Floats
from analysis.loading.outcomes import Outcome, outcome
from analysis.loading.replicate_runs import seed_name
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect
from analysis.stats.over_samples import clustered_difference, share_right
from analysis.stats.paired import paired
from analysis.stats.replicates import compared_scores
from analysis.stats.scores import Difference, as_difference, difference_of, percents
from analysis.stats.significance import (
    PAIRS_NEEDED,
    clustered_mcnemar,
    mcnemar,
    paired_bootstrap,
    probability_of_better,
)
from analysis.tables.checks import check_rows
from mmkd.config import SEEDS_PER_REPLICATE
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
        replicates: how many both have, 1 in a study without replicates.
        over_seeds: Welch's t over the seeds: would other seeds say the same, on these test samples? With replicates the
            paired test over these, as in the table: would other replicates?
        test: that test, in words.
        samples: how many test samples, in all replicates.
        groups: how many groups the samples have; 0 if the data have none.
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
    replicates: int
    over_seeds: Difference
    test: str
    samples: int
    groups: int
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
    ours, theirs = _outcomes(runs, first), _outcomes(runs, second)
    common = _same_samples(first, ours, second, theirs)
    differences, groups = _by_sample([(_runs_of(ours, number), _runs_of(theirs, number)) for number in common])
    shared = [seed for seed in ours if seed in theirs]
    tested, test = _over_seeds(runs, first, second)
    accuracies = ([float(of[seed].right.mean()) for seed in shared] for of in (ours, theirs))
    return Comparison(
        first.title,
        second.title,
        len(ours),
        len(theirs),
        len(common),
        tested,
        test,
        len(differences),
        len(set(groups)),
        _over_samples(differences, groups),
        tuple(SeedPair(seed, *mcnemar(ours[seed].right, theirs[seed].right)) for seed in shared),
        probability_of_better(*accuracies) if shared else None,
        tuple(finding.text for finding in check_rows(runs, [first, second])),
    )


Outcomes = Mapping[int, Outcome]
"""What the final runs of a row predicted, by the seeds of their configurations."""


def _outcomes(runs: Runs, row: RowRuns) -> Outcomes:
    return {int(str(seed)): outcome(runs, directory) for seed, directory in row.measured["directory"].items()}


def _runs_of(outcomes: Outcomes, replicate: int) -> list[Outcome]:
    return [found for seed, found in outcomes.items() if seed // SEEDS_PER_REPLICATE == replicate]


def _same_samples(a: RowRuns, ours: Outcomes, b: RowRuns, theirs: Outcomes) -> list[int]:
    """The replicates that both rows have.

    Raises:
        UserError: there is none, or the runs of one were not all measured on the same samples in the same order.
    """
    numbers = ({seed // SEEDS_PER_REPLICATE for seed in of} for of in (ours, theirs))
    common = sorted(set.intersection(*numbers))
    if not common:
        raise UserError(f"{a.title} and {b.title}: no replicate has runs of both, nothing can be paired")
    for number in common:
        if len({found.samples for of in (ours, theirs) for found in _runs_of(of, number)}) > 1:
            raise UserError(f"{a.title} and {b.title}: measured on different test samples, nothing can be paired")
    return common


def _by_sample(pairs: Sequence[tuple[Sequence[Outcome], Sequence[Outcome]]]) -> tuple[Floats, list[str]]:
    """(N,) the share of A's runs that got each sample right minus that of B's, in points, mean over its replicates; and
    the samples' groups, none where the data have none."""
    differences = np.concatenate([share_right(ours) - share_right(theirs) for ours, theirs in pairs])
    tested = [ours[0] for ours, _ in pairs]
    ids = [sample for found in tested for sample in found.ids]
    group_of = dict(zip(ids, (group for found in tested for group in found.groups), strict=False))
    means = pd.Series(differences).groupby(ids, sort=False).mean()
    return means.to_numpy(np.float64), [group_of[sample] for sample in means.index] if group_of else []


def _over_samples(differences: Floats, groups: Sequence[str]) -> Difference:
    if groups:
        return clustered_difference(differences, groups)
    low, high = paired_bootstrap(differences)
    return Difference(float(differences.mean()), low, high, clustered_mcnemar(differences))


def _over_seeds(runs: Runs, a: RowRuns, b: RowRuns) -> tuple[Difference, str]:
    """A less B over their seeds or replicates, and by which test."""
    if not (a.is_replicated or b.is_replicated):
        return difference_of(*(percents(row.measured, "test_accuracy") for row in (a, b))), "Welch's t over seeds"
    scores = compared_scores(runs, {"a": a, "b": b}, "accuracy")
    groups = " and test groups" if scores["a"].groups else ""
    way = "two-way t" if groups else "paired t"
    return as_difference(paired(scores["a"], scores["b"])), f"{way} over replicates{groups}"


def p_value(p: float) -> str:
    """`p = 0.012`, or that it is below a thousandth."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def comparison_text(found: Comparison) -> str:
    """A comparison in a few lines."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Comparison) -> Iterator[str]:
    unit = "run" if found.replicates > 1 else "seed"
    yield f"A  {found.a} ({count(found.seeds_a, unit)})"
    yield f"B  {found.b} ({count(found.seeds_b, unit)})"
    seeds, samples = difference_text(found.over_seeds), difference_text(found.over_samples, "groups")
    yield "Test accuracy of A minus that of B, in points:"
    if found.replicates > 1:
        yield f"  other replicates?  {seeds}  ({found.test}, {found.replicates} of both rows)"
    else:
        yield f"  other seeds?    {seeds}  ({found.test}, these {found.samples} samples)"
    independent = "paired bootstrap and clustered McNemar over samples, these runs; samples taken as independent"
    how = f"t over {found.groups} groups of samples, these runs" if found.groups else independent
    yield f"  other samples?  {samples}  ({how})"
    for pair in found.pairs:
        yield (
            f"  {seed_name(pair.seed)}: {pair.only_a} samples right in A alone, {pair.only_b} in B alone, "
            f"{p_value(pair.p)} (McNemar, exact, not corrected)"
        )
    if found.better is not None:
        few = len(found.pairs) < PAIRS_NEEDED
        yield (
            f"  P(A > B) = {found.better:.2f} over {count(len(found.pairs), 'pair')} of runs"
            + (f": indicative only, below {PAIRS_NEEDED} pairs" if few else "")
        )
    yield from (f"WARNING: {warning}" for warning in found.warnings)


def difference_text(found: Difference, unit: str = "seeds") -> str:
    """A difference in points, with its interval and p where there are enough of the unit that it is over."""
    if found.low is None or found.high is None or found.p is None:
        return f"{found.value:+z.2f} (no interval: too few {unit}, or the same difference in all)"
    return f"{found.value:+z.2f} [{found.low:+z.2f}, {found.high:+z.2f}], {p_value(found.p)}"
