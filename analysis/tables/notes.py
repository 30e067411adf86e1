"""The lines below a table: origin of its numbers, tests, minimum detectable difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.loading.study_rows import RowRuns
from analysis.stats.error_bars import ERRORS, Error
from analysis.stats.scores import comparable, percents
from analysis.stats.uncertainty import minimum_detectable_difference
from mmkd.formatting import count


def legend(rows: Sequence[RowRuns], control: RowRuns | None) -> str:
    """The meaning of the marks; {best}, {second} and {tied} stand for a format's marks. Empty without marks."""
    members = comparable(rows, control)
    if len(members) < 2:
        return ""
    left_out = len(rows) - len(members)
    scope = f"the {len(members)} students" + (f" ({left_out} of {len(rows)} rows not compared)" if left_out else "")
    return (
        f"{{best}} is the best and {{second}} the second of {scope}, teachers apart; {{tied}}: not significantly "
        "different from the best (Games-Howell over all pairs, 5 %)"
    )


def notes(rows: Sequence[RowRuns], control: RowRuns | None, samples: int, error: Error, cost: str) -> Iterator[str]:
    """The notes, in order."""
    yield from _data(rows, samples)
    yield _scores(rows, error)
    yield from _differences(rows, control)
    yield _power(rows)
    yield _tuning(rows)
    lower = [row.title for row in rows if row.fact("training.precision") == "bf16"]
    if lower:
        yield f"trained with networks in bfloat16, evaluated in float32: {'; '.join(lower)}"
    yield from _majority(rows)
    if control is not None:
        yield f"gap: (row - control) / (teacher - control) on mean accuracy; the control is “{control.title}”"
    yield (
        "params: trained parameters; compr.: the teacher's parameters over the student's; trials: sampled, failed ones "
        f"too (n/N: n of them ended with a result); {cost}: tuning and final runs, for teachers their training"
    )


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
        yield f"test split: {samples} samples; one is {100 / samples:.2g} points, and no score is shown finer"


def _scores(rows: Sequence[RowRuns], error: Error) -> str:
    seeds = [", ".join(map(str, seeds)) for seeds in dict.fromkeys(row.spec.seeds for row in rows)]
    return (
        f"scores: test split, mean ± {ERRORS[error]} over n final runs (seeds {' or '.join(seeds)}), at the epoch of "
        "lowest validation loss; n/N: n of N seeds have a score; ± says nothing about other test samples"
    )


def _differences(rows: Sequence[RowRuns], control: RowRuns | None) -> Iterator[str]:
    if control is None:
        return
    compared = [row for row in comparable(rows, control) if row is not control]
    if compared:
        yield (
            f"Δ: mean accuracy minus that of the control “{control.title}”, in points, with Welch's 95 % interval of "
            "this comparison alone; p: Welch's t test, two-sided, corrected by Holm for "
            f"{count(len(compared), 'comparison')}"
        )


def _tuning(rows: Sequence[RowRuns]) -> str:
    selections = dict.fromkeys(row.fact("selection") for row in rows if row.row is not None)
    budgets = dict.fromkeys(f"{row.sampled}" for row in rows)
    trials = f"{' or '.join(budgets)} trial{'' if list(budgets) == ['1'] else 's'}"
    return (
        f"tuning: winner by validation {' or '.join(selections) or 'metric'}, on the validation split only, "
        f"{trials} per row; the winner is retrained on each seed"
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


def _power(rows: Sequence[RowRuns]) -> str:
    scores = [percents(row.measured, "test_accuracy") for row in rows if not row.status]
    groups = [(len(values), float(values.std(ddof=1))) for values in scores if len(values) > 1]
    minimum = minimum_detectable_difference(groups)
    if minimum is None:
        return "no finished row has two seeds: no spread is known, and no difference can be told from chance"
    return (
        f"minimum detectable difference: {minimum.difference:.2g} points of accuracy with {minimum.n} seeds per row "
        f"(Welch's t, two-sided 5 %, power .8, pooled SD {minimum.pooled:.2g}, no correction for several comparisons)"
    )
