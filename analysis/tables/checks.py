"""Checks of a table: rows that are not comparable, incomplete, or chosen on test. They warn and repair nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.checks.configurations import unlike_their_row
from analysis.checks.copies import copied_runs
from analysis.checks.environments import unequal_environments
from analysis.checks.finding import REMARK, Finding, first_few, names_of, unequal
from analysis.checks.references import below_references
from analysis.checks.selection import chosen_on_test, extended
from analysis.checks.training import too_short
from analysis.loading.outcomes import outcome
from analysis.loading.replicate_runs import ReplicateRuns, failures
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns
from analysis.stats.replicates import METRICS
from analysis.tables.matched_controls import unlike_controls
from mmkd.config import ALGORITHM_VERSION
from mmkd.formatting import count
from mmkd.result_file import ResultError


def check_rows(runs: Runs, rows: Sequence[RowRuns]) -> Iterator[Finding]:
    """Run all checks of a study's rows."""
    everything = [one for row in rows for one in row.replicates]
    started = [one for one in everything if one.facts is not None]
    yield from _unequal("replicates", "replicates", rows, [str(len(row.replicates)) for row in rows])
    yield from _unequal("budgets", "tuning budgets (trials)", everything, [str(one.sampled) for one in everything])
    seeds = [", ".join(map(str, dict.fromkeys(one.spec.seeds))) for one in everything]
    yield from _unequal("seeds", "seeds", everything, seeds)
    yield from _unequal("data", "data sets", started, [row.fact("fingerprint")[:12] for row in started])
    for column in ("selection", "sampler", "pruner"):
        yield from _unequal("configurations", f"{column}s", started, [row.fact(column) for row in started])
    yield from _unequal("configurations", "algorithm versions", started, [row.fact("algorithm") for row in started])
    yield from _older_version(started)
    for column in dict.fromkeys(key for row in started for key in row.facts or ()):
        if column.startswith(("training.", "space.learning_rate.", "teacher.training.", "teacher.network.")):
            yield from _unequal("configurations", column, started, [row.fact(column) for row in started])
    yield from (Finding("controls", text) for text in unlike_controls(rows))
    yield from _unequal_splits(runs, started)
    yield from copied_runs(runs, rows)
    yield from unlike_their_row(runs, started)
    yield from _foreign_data(started)
    yield from _not_numbers(rows)
    yield from _commits(started)
    yield from unequal_environments(runs, started)
    yield from too_short(rows)
    yield from below_references(runs, rows)
    for row in started:
        yield from chosen_on_test(row)
    yield from extended(started)
    yield from _incomplete(rows)
    yield from _rejected(runs, rows)


def _unequal(
    kind: str, what: str, rows: Sequence[RowRuns] | Sequence[ReplicateRuns], values: Sequence[str]
) -> Iterator[Finding]:
    return unequal(kind, what, [row.title for row in rows], values)


def _older_version(rows: Sequence[ReplicateRuns]) -> Iterator[Finding]:
    """Rows that this mmkd would compute otherwise."""
    older = [row for row in rows if int(row.fact("algorithm")) < ALGORITHM_VERSION]
    if older:
        which = ", ".join(dict.fromkeys(row.fact("algorithm") for row in older))
        yield Finding(
            REMARK,
            f"{len(older)} of {count(len(rows), 'row')}: algorithm version {which} (now {ALGORITHM_VERSION}), shown as "
            "they were; a launch begins new rows",
        )


def _unequal_splits(runs: Runs, started: Sequence[ReplicateRuns]) -> Iterator[Finding]:
    """Rows that one replicate divides differently, or that were tested on other samples or labels."""
    for number in sorted({one.spec.replicate for one in started}):
        same = [one for one in started if one.spec.replicate == number]
        where = f" in replicate {number}" if any(one.spec.replicate for one in started) else ""
        splits = [one.fact("split")[:12] or "the file's" for one in same]
        yield from _unequal("splits", f"splits{where}", same, splits)
        tested = [one.measured["directory"] for one in same]
        samples = [_samples(runs, directories.iloc[0]) if len(directories) else "" for directories in tested]
        yield from _unequal("samples", f"test samples (ids and labels){where}", same, samples)


def _samples(runs: Runs, directory: str) -> str:
    """The beginning of the hash of a run's test samples; empty where its result is damaged, which `doctor` reports."""
    try:
        return outcome(runs, directory).samples[:12]
    except ResultError:
        return ""


def _foreign_data(rows: Sequence[ReplicateRuns]) -> Iterator[Finding]:
    """Runs and teachers that were trained on other data than their row's."""
    for row in rows:
        known, data = zip(row.values("directory"), row.values("fingerprint"), strict=True), row.fact("fingerprint")
        foreign = [directory for directory, found in known if not pd.isna(found) and found != data]
        if foreign:
            yield Finding("data", f"{row.title}: of other data than the row's: {first_few(foreign)}")


def _not_numbers(rows: Sequence[RowRuns]) -> Iterator[Finding]:
    """Metrics of a complete run that are NaN: their means are of the other runs."""
    for row in rows:
        for metric in (*METRICS, "majority_share"):
            without = row.measured[row.measured[f"test_{metric}"].isna()]
            if len(without):
                names = names_of(without["directory"])
                yield Finding("scores", f"{row.title}: test {metric} is not a number, and left out: {names}")


def _commits(rows: Sequence[ReplicateRuns]) -> Iterator[Finding]:
    """Runs that different versions of the code made."""
    by_run = {d: c for row in rows for d, c in zip(row.values("directory"), row.values("commit"), strict=True)}
    known = [commit for directory, commit in by_run.items() if not pd.isna(directory) and not pd.isna(commit)]
    counts = Counter(known)
    if len(counts) > 1:
        listed = first_few(f"{commit} ({number} of {len(known)} runs)" for commit, number in counts.items())
        yield Finding("code", f"code commits are unequal (+ marks uncommitted changes): {listed}")
    elif any("+" in commit for commit in counts):
        yield Finding(REMARK, f"the code had uncommitted changes: {known[0]}")


def _incomplete(rows: Sequence[RowRuns]) -> Iterator[Finding]:
    """Rows and replicates that are not finished or failed, and seeds and teachers without a score in the others."""
    unfinished = [f"{row.title} ({row.status})" for row in rows if row.status]
    if unfinished:
        yield Finding(
            "unfinished", f"{len(unfinished)} of {len(rows)} rows have no final score: {first_few(unfinished)}"
        )
    failed = [one for row in rows if row.is_replicated for one in row.replicates if one.status.startswith("failed")]
    for one in failed:
        yield Finding("replicates", f"{one.title}: {one.status}; the table is of the other replicates")
    said = set()
    for one in (one for row in rows for one in row.replicates):
        for name, done, wanted in (
            ("seeds", one.measured, one.final_runs),
            ("teachers", one.measured_teachers, one.teachers),
        ):
            if one.status or len(done) == len(wanted):
                continue
            lacking = f"{len(done)}/{len(wanted)} {name} ({failures(wanted)})"
            if name == "seeds" or lacking not in said:
                said.add(lacking)
                yield Finding("seeds", f"{one.title}: {lacking}")
        without = 0 if one.status else one.sampled - one.finished
        if without > 0:
            yield Finding(
                "trials",
                f"{one.title}: {without} of {one.sampled} tuning trials have no result; the same launch runs again "
                "what is damaged or gone, --retry failed what failed",
            )


def _rejected(runs: Runs, rows: Sequence[RowRuns]) -> Iterator[Finding]:
    """Files of the study's rows and their teachers that do not count: unreadable ones, and what was set aside."""
    mine = {f"rows/{one.spec.directory}" for row in rows for one in row.replicates}
    mine |= {str(directory) for row in rows for directory in row.teachers.index}
    for path, reason in runs.rejected.itertuples(index=False):
        if path in mine or "/".join(path.split("/")[:2]) in mine:
            yield Finding("rejected", f"not counted: {path}: {reason.removeprefix(f'{path}: ')}")
