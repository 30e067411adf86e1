"""Check that runs which count as several are several: weights, predictions, teachers and attempts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.checks.finding import SHOWN, Finding, first_few, names_of
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns
from mmkd.formatting import count
from mmkd.result_file import Status

PREDICTED = ["test_loss", "test_accuracy", "test_weighted_f1", "test_macro_f1"]
"""Test metrics at full precision: runs that have all of them in common have the same predictions."""


def copied_runs(runs: Runs, rows: Sequence[RowRuns]) -> Iterator[Finding]:
    """Run these checks."""
    yield from _same_seeds(rows)
    yield from _same_in_two_rows(rows)
    for row in rows:
        yield from _too_few_teachers(row)
        yield from _several_complete_attempts(runs, row)


def _same_seeds(rows: Sequence[RowRuns]) -> Iterator[Finding]:
    """Two runs that count as two seeds and are one: the spread is then too small, and n too large."""
    for row in rows:
        for column, what in (("seed", "have seed"), ("weights", "ended with the same weights")):
            for value, same in row.final_runs.dropna(subset=[column]).groupby(column):
                if len(same) > 1:
                    which = f" {value}" if column == "seed" else ""
                    names = names_of(same["directory"])
                    yield Finding("seeds", f"{row.title}: duplicate seeds: the runs {names} all {what}{which}")
        for one in row.replicates:
            twice = sorted({seed for seed in one.spec.seeds if one.spec.seeds.count(seed) > 1})
            if twice:
                listed = first_few(map(str, twice))
                yield Finding("seeds", f"{one.title}: duplicate seeds: the study lists {listed} twice")


def _same_in_two_rows(rows: Sequence[RowRuns]) -> Iterator[Finding]:
    """Rows whose runs have the same weights, or the same predictions: at most one of them is what it is called."""
    runs = pd.concat([row.measured.assign(title=row.title) for row in rows], ignore_index=True)
    runs = runs.drop_duplicates("directory")
    for columns, what in ((["weights"], "weights"), (PREDICTED, "test scores to the last digit")):
        known = runs.dropna(subset=columns)
        repeated = known[known.duplicated(columns, keep=False)]
        groups = [same for _, same in repeated.groupby(columns, sort=False) if same["title"].nunique() > 1]
        if groups:
            listed = "; ".join(" = ".join(same["directory"].head(2)) for same in groups[:SHOWN])
            more = f" and {len(groups) - SHOWN} more" if len(groups) > SHOWN else ""
            yield Finding("copies", f"final runs of several rows have the same {what}: {listed}{more}")
        runs = runs.drop(index=repeated.index)


def _too_few_teachers(row: RowRuns) -> Iterator[Finding]:
    """Each final run has its own teacher: else the spread over seeds does not cover that of teachers."""
    taught = row.final_runs["teacher"].dropna()
    if 0 < taught.nunique() < len(taught):
        teachers = f"{count(taught.nunique(), 'teacher')} for {len(taught)} final runs"
        yield Finding("teachers", f"{row.title}: {teachers}: ± does not cover other teachers")


def _several_complete_attempts(runs: Runs, row: RowRuns) -> Iterator[Finding]:
    """Final runs that read test more than once: somebody may have chosen among their results."""
    for directory in row.final_runs["directory"].dropna():
        complete = [a for a in runs.recorded[directory] if Status.COMPLETE in (a.ran.end, a.submitted.end)]
        if len(complete) > 1:
            yield Finding("selection", f"{directory}: {len(complete)} complete attempts: test was read more than once")
