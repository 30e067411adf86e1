"""The lines below a table: origin of its numbers, tests, minimum detectable difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns
from analysis.stats.error_bars import ERRORS, Error
from analysis.stats.paired import VarianceShares
from analysis.stats.replicates import compared_scores, tests_to_control
from analysis.stats.scores import comparable, difference_of, percents
from analysis.tables.model import TIED, UNTESTED
from analysis.tables.verdict import minimum_detectable
from mmkd.formatting import count, significant


def legend(rows: Sequence[RowRuns], control: RowRuns | None, *, has_untested: bool) -> str:
    """The meaning of the marks; {best} and {second} stand for a format's own. Empty without marks."""
    members = comparable(rows, control)
    if len(members) < 2:
        return ""
    left_out = len(rows) - len(members)
    scope = f"the {len(members)} students" + (f" ({left_out} of {len(rows)} rows not compared)" if left_out else "")
    replicated = any(row.is_replicated for row in rows)
    test = "paired tests of all pairs, Holm" if replicated else "Games-Howell over all pairs"
    few = f"; {UNTESTED}: too few {'replicates' if replicated else 'seeds'} to test, of it or of the best"
    return (
        f"{{best}} is the best and {{second}} the second of {scope}, teachers apart; {TIED}: not significantly "
        f"different from the best ({test}, 5 %){few * has_untested}"
    )


def notes(
    runs: Runs, rows: Sequence[RowRuns], control: RowRuns | None, samples: int, error: Error, cost: str
) -> Iterator[str]:
    """The notes, in order."""
    yield from _data(rows, samples)
    yield _scores(rows, error)
    members = comparable(rows, control)
    if any(row.is_replicated for row in rows):
        yield from _over_replicates(runs, members)
    else:
        yield from _over_seeds(runs, members)
    yield _tuning(rows)
    if tried := dict.fromkeys(len(row.spec.candidates) for row in rows if row.spec.candidates):
        each = "in each replicate " if any(row.is_replicated for row in rows) else ""
        yield f"teachers are tuned: {each}the best of {' or '.join(map(str, tried))} on validation"
    lower = [row.title for row in rows if row.fact("training.precision") == "bf16"]
    if lower:
        yield f"trained with networks in bfloat16, evaluated in float32: {'; '.join(lower)}"
    yield from _majority(rows)
    if any(row.control for row in rows):
        yield "gap: (row - control) / (teacher - control) on mean accuracy, with its 95 % interval (Fieller)"
    yield (
        "params: trained parameters; compr.: the teacher's parameters over the student's; trials: sampled, failed ones "
        f"too (n/N: n of them ended with a result); {cost}: tuning and final runs, for teachers their training"
    )


def brief_notes(rows: Sequence[RowRuns], error: Error) -> Iterator[str]:
    """The notes in short: what may not be left out."""
    yield from (note for note in _data(rows, 0) if note.startswith("data: "))
    unit = "replicates" if any(row.is_replicated for row in rows) else "final runs (seeds)"
    yield f"test split, mean ± {error.upper()} over n {unit}; --notes all: tests, budgets, columns, data"


def _data(rows: Sequence[RowRuns], samples: int) -> Iterator[str]:
    started = [row for row in rows if row.row is not None]
    for source, fingerprint in dict.fromkeys((row.fact("source"), row.fact("fingerprint")) for row in started):
        warning = ": SYNTHETIC data, made up, no evidence about real ones" if source.startswith("synthetic") else ""
        yield f"data: {source}, fingerprint {fingerprint[:12]}{warning}"
    students: dict[str, dict[str, None]] = {}
    for row in started:
        students.setdefault(row.fact("primary"), {})[row.fact("pairing")] = None
    if students:
        listed = "; ".join(f"{primary} (pairing {', '.join(pairings)})" for primary, pairings in students.items())
        yield f"primary modality {listed}"
    if samples:
        every = " in all replicates" if any(row.is_replicated for row in rows) else ""
        one = significant(100 / samples)
        yield f"test split: {samples} samples{every}; one is {one} points, and no score is shown finer"


def _scores(rows: Sequence[RowRuns], error: Error) -> str:
    seeds = [", ".join(map(str, seeds)) for seeds in dict.fromkeys(row.spec.seeds for row in rows)]
    epoch = "at the epoch of lowest validation loss"
    if any(row.is_replicated for row in rows):
        return (
            f"scores: test split, mean ± {ERRORS[error]} over n replicates; a replicate is a run of the whole row, "
            "with its own split, teachers, tuning and winner, and its value the mean of the winner's final runs (seeds "
            f"{' or '.join(seeds)}) {epoch}; n/N: n of N replicates have a score"
        )
    return (
        f"scores: test split, mean ± {ERRORS[error]} over n final runs (seeds {' or '.join(seeds)}), {epoch}; "
        "n/N: n of N seeds have a score; ± says nothing about other test samples"
    )


def _over_seeds(runs: Runs, members: Sequence[RowRuns]) -> Iterator[str]:
    """Tests over the seeds of one tuning."""
    scores = {row.spec.name: percents(row.measured, "test_accuracy") for row in members}
    pairs = [(scores[row.spec.name], scores[row.control]) for row in members if row.control in scores]
    compared = sum(difference_of(*pair).p is not None for pair in pairs)
    if compared:
        yield (
            "Δ: mean accuracy minus that of the row's control, in points, with Welch's 95 % interval of "
            "this comparison alone; p: Welch's t test, two-sided, corrected by Holm for "
            f"{count(compared, 'comparison')}"
        )
    minimum = minimum_detectable(runs, members)
    if minimum is None:
        yield "no finished row has two seeds: no spread is known, and no difference can be told from chance"
        return
    yield (
        f"minimum detectable difference: {significant(minimum.difference)} points of accuracy with {minimum.n} seeds "
        f"per row (Welch's t, two-sided {_level(compared)}, power .8, pooled SD {significant(minimum.pooled)})"
    )


def _over_replicates(runs: Runs, members: Sequence[RowRuns]) -> Iterator[str]:
    """Tests over replicates."""
    scores = compared_scores(runs, {row.spec.name: row for row in members}, "accuracy")
    grouped = any(score.groups for score in scores.values())
    covers = "± and p cover seed, tuning and teachers"
    if grouped:
        yield f"{covers}, split and test groups; not that replicates share parts of train"
    else:
        yield f"{covers}, and train and validation where they are drawn; all replicates have the same test samples"
    controls = {row.spec.name: row.control for row in members}
    if not any(controls.values()):
        return
    tests = [test for test in tests_to_control(scores, controls).values() if test.error > 0]
    if not tests:
        yield "no row has two replicates in common with its control that differ: nothing can be told from chance"
        return
    way = "two-way t test, clustered by replicate and by test group," if grouped else "paired t test,"
    yield (
        "Δ: mean accuracy minus that of the row's control in the same replicates, in points, with the "
        f"95 % interval of this comparison alone; effect size: Δ in SDs of the differences of replicates; p: {way} "
        f"two-sided, corrected by Holm for {count(len(tests), 'comparison')}"
    )
    freedom = min(test.freedom for test in tests)
    minimum = minimum_detectable(runs, members)
    assert minimum is not None
    yield (
        f"minimum detectable difference: {significant(minimum.difference)} points of accuracy with "
        f"{count(minimum.n, 'replicate')} per row ({way.rstrip(',')}, {freedom} degrees of freedom, two-sided "
        f"{_level(len(tests))}, power .8, pooled standard error {significant(minimum.pooled)})"
    )
    yield from _shares([test.shares for test in tests if test.shares is not None])


def _level(comparisons: int) -> str:
    return f"5 % / {comparisons}, Holm's first step" if comparisons > 1 else "5 %"


def _shares(shares: Sequence[VarianceShares]) -> Iterator[str]:
    """Where the variance of a difference comes from, averaged over rows."""
    known = [one for one in shares if one.group == one.group]
    if not known:
        return
    parts = {
        "test group": [one.group**2 for one in known],
        "replicate": [0.0 if one.replicate != one.replicate else one.replicate**2 for one in known],
        "both at once": [one.rest**2 for one in known],
    }
    means = {name: sum(values) / len(known) for name, values in parts.items()}
    total = sum(means.values())
    if not total:
        return
    if any(one.replicate != one.replicate for one in known):
        del means["replicate"]  # each replicate is one group: their variances are one
    listed = ", ".join(f"{name} {100 * value / total:.0f} %" for name, value in means.items())
    tau = means["test group"] ** 0.5
    yield (
        f"variance of a difference in one test group of a replicate: {listed}; methods differ from group to group by "
        f"SD {significant(tau)} points, which more replicates do not average out"
    )


def _tuning(rows: Sequence[RowRuns]) -> str:
    selections = dict.fromkeys(row.fact("selection") for row in rows if row.row is not None)
    budgets = dict.fromkeys(f"{one.sampled}" for row in rows for one in row.replicates)
    replicated = any(row.is_replicated for row in rows)
    trials = f"{' or '.join(budgets)} trial{'' if list(budgets) == ['1'] else 's'}"
    return (
        f"tuning: winner by validation {' or '.join(selections) or 'metric'}, on the validation split only, "
        f"{trials} per row{' and replicate' * replicated}; the winner is retrained on each seed"
    )


def _majority(rows: Sequence[RowRuns]) -> Iterator[str]:
    """The accuracy of always predicting the most frequent class of train: a property of the data, equal in all runs."""
    known = pd.concat([row.measured["test_majority_accuracy"] for row in rows])
    shares = dict.fromkeys(f"{100 * value:.1f}" for value in known.dropna())
    if shares:
        yield (
            f"maj.: majority-class prediction rate, of the most frequent class of train; always predicting it has "
            f"accuracy {' or '.join(shares)} %"
        )
