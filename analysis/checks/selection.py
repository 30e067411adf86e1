"""Checks of the selection: test data decided nothing, and the winner is the best by validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.checks.finalists import finalist_means
from analysis.checks.finding import EXTENDED, Finding, first_few, names_of
from analysis.loading.frames import HYPERPARAMETERS
from analysis.loading.replicate_runs import ReplicateRuns
from mmkd.formatting import count
from mmkd.metrics import best_trial
from mmkd.result_file import Status


def chosen_on_test(row: ReplicateRuns) -> Iterator[Finding]:
    """Ways in which test data may have influenced the selection."""
    selection = row.fact("selection")
    if selection.startswith("test"):
        yield Finding("selection", f"{row.title}: selection on test: its selection metric is {selection!r}")
    tuned = zip(row.values("directory", ["tuning"]), row.values("test_accuracy", ["tuning"]), strict=True)
    measured = [directory for directory, accuracy in tuned if accuracy == accuracy]
    if measured:
        yield Finding(
            "selection",
            f"{row.title}: selection on test is possible: {len(measured)} tuning trials were measured on test "
            f"({names_of(measured)})",
        )
    yield from _other_winner(row, selection)


def extended(rows: Sequence[ReplicateRuns]) -> Iterator[Finding]:
    """Rows in which another trial won after they were extended."""
    scores = {row.title: row.values("test_accuracy", ["superseded"]) for row in rows if row.winner is not None}
    former = {title: sum(not pd.isna(score) for score in found) for title, found in scores.items()}
    titles = [title for title, runs in former.items() if runs]
    if titles:
        yield Finding(
            EXTENDED,
            f"extended, and then another trial won: {first_few(titles)}; test was also read for the former winners "
            f"({count(sum(former.values()), 'run')}, not shown)",
        )


def _other_winner(row: ReplicateRuns, selection: str) -> Iterator[Finding]:
    """Winners that are not the best by validation of the trials sampled when they were chosen, or the finalist of best
    mean, the earliest of equals; and final runs with other hyperparameters."""
    column, winner = f"valid_{selection}", row.winner
    if winner is None or row.facts is None or column not in row.study.frames["tuning"]:
        return
    number, value, status = (row.values(name, ["tuning"]) for name in ("number", column, "status"))
    values = {
        int(n): float(x)
        for n, x, state in zip(number, value, status, strict=True)
        if state == Status.COMPLETE and n < row.facts["numbers"] and not pd.isna(x)
    }
    if finalists := row.fact("finalists.best"):
        values = finalist_means(row, values, selection, int(finalists))
    best = best_trial(selection, values)
    if best not in (None, winner):
        yield Finding(
            "selection",
            f"{row.title}: the winner is trial {winner}, but trial {best} is the best by validation {selection}",
        )
    stored = float(row.facts["winner_value"])
    if winner in values and not math.isclose(values[winner], stored, rel_tol=1e-6):
        said = f"winner.json says {stored:.6g}, the trial {values[winner]:.6g}"
        yield Finding("selection", f"{row.title}: validation {selection} of trial {winner}: {said}")
    if winner not in number:
        return
    for name in HYPERPARAMETERS:
        chosen = row.values(name, ["tuning"])[number.index(winner)]
        runs = zip(*(row.values(column, ["final_runs"]) for column in (name, "learning_rate")), strict=True)
        if any(not pd.isna(rate) and mine != chosen and not (pd.isna(mine) and pd.isna(chosen)) for mine, rate in runs):
            yield Finding("selection", f"{row.title}: final runs have other hyperparameters than trial {winner}")
            return
