"""Checks of a table: rows that are not comparable, incomplete, or chosen on test. They warn and repair nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from analysis.checks.configurations import unlike_their_row
from analysis.checks.copies import copied_runs
from analysis.checks.environments import unequal_environments
from analysis.checks.finding import REMARK, Finding, first_few, names_of, unequal
from analysis.checks.training import too_short
from analysis.loading.outcomes import outcome
from analysis.loading.replicate_runs import FINISHED, ReplicateRuns, failures
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns
from analysis.stats.replicates import METRICS
from mmkd.config import ALGORITHM_VERSION, SEEDS_PER_REPLICATE
from mmkd.formatting import count
from mmkd.metrics import best_trial, lower_is_better
from mmkd.records import differences
from mmkd.result_file import ResultError, Status


def check_rows(runs: Runs, rows: Sequence[RowRuns]) -> Iterator[Finding]:
    """Run all checks of a study's rows."""
    everything = [one for row in rows for one in row.replicates]
    started = [one for one in everything if one.row is not None]
    yield from _unequal("replicates", "replicates", rows, [str(len(row.replicates)) for row in rows])
    yield from _unequal("budgets", "tuning budgets (trials)", everything, [str(one.sampled) for one in everything])
    seeds = [", ".join(map(str, dict.fromkeys(one.spec.seeds))) for one in everything]
    yield from _unequal("seeds", "seeds", everything, seeds)
    yield from _unequal("data", "data sets", started, [row.fact("fingerprint")[:12] for row in started])
    for column in ("selection", "sampler", "pruner"):
        yield from _unequal("configurations", f"{column}s", started, [row.fact(column) for row in started])
    yield from _unequal("configurations", "algorithm versions", started, [row.fact("algorithm") for row in started])
    yield from _older_version(started)
    known = ({} if row.row is None else row.row.dropna().to_dict() for row in started)
    for column in differences([{str(key): value for key, value in line.items()} for line in known]):
        if column.startswith(("training.", "space.learning_rate.", "teacher.training.", "teacher.network.")):
            yield from _unequal("configurations", column, started, [row.fact(column) for row in started])
    yield from _unequal_splits(runs, started)
    yield from copied_runs(runs, rows)
    yield from unlike_their_row(runs, started)
    yield from _foreign_data(started)
    yield from _not_numbers(rows)
    yield from _commits(started)
    yield from unequal_environments(runs, started)
    yield from too_short(rows)
    for row in started:
        yield from _chosen_on_test(row)
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
        ours = row.trials
        foreign = ours[ours["fingerprint"].notna() & (ours["fingerprint"] != row.fact("fingerprint"))]
        if len(foreign):
            yield Finding("data", f"{row.title}: of other data than the row's: {first_few(foreign['directory'])}")


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
    if not rows:
        return
    known = pd.concat([row.trials[["directory", "commit"]] for row in rows]).dropna().drop_duplicates("directory")
    counts = known["commit"].value_counts(sort=False)
    if len(counts) > 1:
        listed = first_few(f"{commit} ({number} of {len(known)} runs)" for commit, number in counts.items())
        yield Finding("code", f"code commits are unequal (+ marks uncommitted changes): {listed}")
    elif any("+" in str(commit) for commit in counts.index):
        yield Finding(REMARK, f"the code had uncommitted changes: {counts.index[0]}")


def _chosen_on_test(row: ReplicateRuns) -> Iterator[Finding]:
    """Ways in which test data may have influenced the selection."""
    selection = row.fact("selection")
    if selection.startswith("test"):
        yield Finding("selection", f"{row.title}: selection on test: its selection metric is {selection!r}")
    measured = row.tuning[row.tuning["test_accuracy"].notna()]
    if len(measured):
        yield Finding(
            "selection",
            f"{row.title}: selection on test is possible: {len(measured)} tuning trials were measured on test "
            f"({names_of(measured['directory'])})",
        )
    yield from _other_winner(row, selection)
    former = int(row.superseded["test_accuracy"].notna().sum())
    if former and row.winner is not None:
        yield Finding(
            "selection",
            f"{row.title}: the row was extended and another trial won; test was also read for the former winner "
            f"({count(former, 'run')}, not shown)",
        )


TUNED = ["learning_rate", "alpha", "beta", "temperature"]


def _criterion(row: ReplicateRuns, selection: str) -> pd.Series[float]:
    """The value that decided about each candidate, by number: its own, or the mean of a finalist's runs.

    Where there are finalists, those with failed runs are left out, unless all have some.
    """
    column = f"valid_{selection}"
    complete = row.candidates[(row.candidates["status"] == Status.COMPLETE) & row.candidates[column].notna()]
    proposed = complete[complete["seed"] % SEEDS_PER_REPLICATE == 0].set_index("number")
    if not (wanted := row.fact("finalists.best")):
        return complete.set_index("number")[column]
    best = proposed.sort_values(column, ascending=lower_is_better(selection), kind="stable").head(int(wanted))
    settings = complete[TUNED].fillna(-1)
    runs = {n: complete[(settings == best.loc[n, TUNED].fillna(-1)).all(axis=1)][column] for n in best.index}
    most = max(map(len, runs.values()), default=0)
    return pd.Series({n: float(own.mean()) for n, own in runs.items() if len(own) == most}, dtype=float)


def _other_winner(row: ReplicateRuns, selection: str) -> Iterator[Finding]:
    """The winner is the best by validation among the trials sampled when it was chosen, the earliest of equals,
    or the finalist of best mean; and the final runs have its hyperparameters."""
    column, winner = f"valid_{selection}", row.winner
    if winner is None or column not in row.tuning:
        return
    values = _criterion(row, selection)
    best = best_trial(selection, {int(str(number)): value for number, value in values.items()})
    if best not in (None, winner):
        yield Finding(
            "selection",
            f"{row.title}: the winner is trial {winner}, but trial {best} is the best by validation {selection}",
        )
    assert row.row is not None
    if winner in values.index and not np.isclose(values[winner], float(row.row["winner_value"]), rtol=1e-6):
        said = f"winner.json says {float(row.row['winner_value']):.6g}, the trial {values[winner]:.6g}"
        yield Finding("selection", f"{row.title}: validation {selection} of trial {winner}: {said}")
    chosen = row.tuning[row.tuning["number"] == winner]
    retrained = row.final_runs[TUNED].dropna(how="all").drop_duplicates()
    if len(chosen) and len(retrained) and not (retrained == chosen.iloc[0][TUNED]).all(axis=None):
        yield Finding("selection", f"{row.title}: final runs have other hyperparameters than trial {winner}")


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
        without = 0 if one.status else one.sampled - int(one.candidates["status"].isin(FINISHED).sum())
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
