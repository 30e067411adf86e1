"""What has to be said with a table: where its numbers come from, what they can show, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from analysis.evidence import Evidence, failures, scored
from analysis.loading import Runs
from analysis.uncertainty import smallest_difference


def warnings(runs: Runs, rows: Sequence[Evidence]) -> Iterator[str]:
    """What makes the table's rows unlike each other or incomplete."""
    yield from _unequal(rows, "tuning budgets (trials)", lambda row: str(row.asked))
    yield from _unequal(rows, "seeds", lambda row: _listed(row.spec.seeds))
    yield from _unequal(rows, "data sets", lambda row: _fact(row, "fingerprint")[:12])
    yield from _unequal(rows, "selection metrics", lambda row: _fact(row, "selection"))
    for row in rows:
        yield from _incomplete(row)
        yield from _read_before(runs, row)
    yield from _rejected(runs, rows)


def _unequal(rows: Sequence[Evidence], what: str, value: Callable[[Evidence], str]) -> Iterator[str]:
    """One warning where `value` (empty: not known) differs between rows."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(value(row), []).append(row.title)
    found.pop("", None)
    if len(found) > 1:
        yield f"{what} are unequal: " + "; ".join(f"{key}: {', '.join(labels)}" for key, labels in found.items())


def _incomplete(row: Evidence) -> Iterator[str]:
    if row.status:
        yield f"{row.title}: {row.status}"
        return
    for name, runs in (("seeds", row.confirming), ("teachers", row.teachers)):
        if len(scored(runs)) < len(runs):
            yield f"{row.title}: {len(scored(runs))}/{len(runs)} {name} ({failures(runs)})"


def _read_before(runs: Runs, row: Evidence) -> Iterator[str]:
    """Where a row was extended and its winner changed, test was read for the former winner too."""
    if row.row is None:
        return
    trials = runs.trials
    former = trials[(trials["row"] == row.spec.directory) & trials["superseded"] & trials["test_accuracy"].notna()]
    if len(former):
        yield (
            f"{row.title}: the row was extended and another trial won; test was also read for the former winner "
            f"({len(former)} runs, not shown)"
        )


def _rejected(runs: Runs, rows: Sequence[Evidence]) -> Iterator[str]:
    """What could not be read of the study's rows and their teachers."""
    mine = {f"rows/{row.spec.directory}" for row in rows}
    mine |= {str(directory) for row in rows for directory in row.teachers.index}
    for path, reason in runs.rejected.itertuples(index=False):
        if path in mine or "/".join(path.split("/")[:2]) in mine:
            yield f"not readable: {path}: {reason.removeprefix(f'{path}: ')}"


def notes(rows: Sequence[Evidence], control: Evidence | None, samples: int) -> Iterator[str]:
    """How to read the table."""
    yield from _data(rows, samples)
    yield _scores(rows)
    yield _tuning(rows)
    yield from _majority(rows)
    if control is not None:
        yield f"gap: (row - control) / (teacher - control) on mean accuracy; the control is “{control.title}”"
    yield (
        "trials: asked, failed ones too (n/N: n of them ended with a result); seconds: tuning and confirming, "
        "for teachers their training"
    )
    yield _power(rows)


def _data(rows: Sequence[Evidence], samples: int) -> Iterator[str]:
    sources = dict.fromkeys((_fact(row, "source"), _fact(row, "fingerprint")) for row in rows if row.row is not None)
    for source, fingerprint in sources:
        warning = ": SYNTHETIC data, made up, no evidence about real ones" if source.startswith("synthetic") else ""
        yield f"data: {source}, fingerprint {fingerprint[:12]}{warning}"
    students = dict.fromkeys(
        f"{_fact(row, 'primary')}, pairing {_fact(row, 'pairing')}" for row in rows if row.row is not None
    )
    if students:
        yield f"students of: {'; '.join(students)}"
    if samples:
        yield f"test split: {samples} samples; one is 100/{samples} points; no score is shown finer"


def _scores(rows: Sequence[Evidence]) -> str:
    seeds = [_listed(seeds) for seeds in dict.fromkeys(row.spec.seeds for row in rows)]
    return (
        "scores: test split, mean ± sample standard deviation (n - 1) over n confirming seeds "
        f"({' or '.join(seeds)}), at the epoch of lowest validation loss; ± says nothing about other test samples"
    )


def _tuning(rows: Sequence[Evidence]) -> str:
    selections = dict.fromkeys(_fact(row, "selection") for row in rows if row.row is not None)
    budgets = dict.fromkeys(f"{row.asked}" for row in rows)
    return (
        f"tuning: winner by validation {' or '.join(selections) or 'metric'}, on the validation split only, "
        f"{' or '.join(budgets)} trials a row; the winner is retrained on the confirming seeds"
    )


def _majority(rows: Sequence[Evidence]) -> Iterator[str]:
    """The accuracy of always predicting the commonest class of train: a property of the data, equal in all runs."""
    known = pd.concat([scored(row.confirming)["test_majority_accuracy"] for row in rows])
    shares = dict.fromkeys(f"{100 * value:.1f}" for value in known.dropna())
    if shares:
        yield (
            f"majority: predicting nothing but the commonest class of train has accuracy {' or '.join(shares)} %; "
            "the column shows how often a row predicts that class"
        )


def _power(rows: Sequence[Evidence]) -> str:
    scores = [100 * scored(row.confirming)["test_accuracy"] for row in rows]
    smallest = smallest_difference([(len(values), float(values.std(ddof=1))) for values in scores if len(values) > 1])
    if smallest is None:
        return "no row has two seeds with a score: no spread is known, and no difference can be told from chance"
    return (
        f"smallest difference that {smallest.n} seeds a row could show: {smallest.difference:.2g} points of accuracy "
        f"(Welch's t, two-sided 5 %, power .8, pooled SD {smallest.pooled:.2g}, no correction for several comparisons)"
    )


def _fact(row: Evidence, column: str) -> str:
    return "" if row.row is None else str(row.row[column])


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
