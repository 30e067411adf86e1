"""Two rows, or two studies, and where they differ: configuration, code and results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.loading.runs import Runs, load
from analysis.loading.study_rows import RowRuns, collect_record, replicates_by_name
from analysis.stats.replicates import METRICS, compared_scores, have_same_splits, tests_to_control
from analysis.stats.scores import Difference, as_difference, difference_of, percents, row_score
from analysis.tables.comparison import difference_text
from mmkd.errors import UserError
from mmkd.find_trial import find_row
from mmkd.formatting import columns
from mmkd.records import (
    RowRecord,
    StudyRecord,
    StudyRow,
    WinnerRecord,
    differences,
    find_record,
    read_record,
    read_study,
    study_names,
)
from mmkd.rundir import RowDir

Facts = Mapping[str, Any]
Differing = Mapping[str, Sequence[Any]]
"""Key -> its value in A and in B; None where there is none."""


@dataclass(frozen=True)
class Result:
    """A test metric of two rows, in per cent: means, sample SDs and numbers of seeds or replicates, and A less B over
    these."""

    metric: str
    a: float | None
    b: float | None
    sd_a: float | None
    sd_b: float | None
    n_a: int
    n_b: int
    difference: Difference | None


@dataclass(frozen=True)
class RowDifference:
    """Where two rows differ; `a` and `b` are their directories."""

    a: str
    b: str
    configuration: Differing
    winner: Differing
    code: Differing
    results: tuple[Result, ...]


@dataclass(frozen=True)
class StudyDifference:
    """Where two studies differ; rows are matched by name, and `same` are those of one directory."""

    a: str
    b: str
    settings: Differing
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    same: tuple[str, ...]
    rows: Mapping[str, RowDifference]


def difference(
    root: Path, a: str, b: str, study: str | None = None, *, cache: bool = True
) -> RowDifference | StudyDifference:
    """Compare two rows, or two studies.

    Args:
        root: directory of the launched studies.
        a: a row's name in a study, its directory, or the name of a study.
        b: likewise.
        study: where the names are those of rows of one study.
        cache: see `analysis.load`.

    Raises:
        UserError: A or B is not found, is not unique, or one is a row and the other a study.
    """
    names = study_names(root)
    if study is None and a in names and b in names:
        return study_difference(load(root, cache=cache), a, b)
    (root_a, row_a), (root_b, row_b) = (described_row(root, name, study) for name in (a, b))
    runs_a = load(root_a, cache=cache)
    runs_b = runs_a if root_a.samefile(root_b) else load(root_b, cache=cache)
    return row_difference(runs_a, row_a, runs_b, row_b)


def described_row(root: Path, name: str, study: str | None) -> tuple[Path, list[StudyRow]]:
    """Find a row (see `mmkd.find_trial.find_row`): its root, and its description in a study or by its own records.

    A name in a study stands for all replicates of the row, a directory for one.

    Raises:
        UserError: there is none, or several.
    """
    try:
        row = find_row(Path(name), root, repr(name), study)
    except UserError:
        others = [other for other in study_names(root) if other != name]
        if name not in study_names(root):
            raise
        there = f" ({', '.join(others)})" if others else ", of which this root has none"
        raise UserError(f"{name!r} is a study: compare it with another study{there}, or give a row's name") from None
    found = row.path.absolute().parents[1]
    for known in [study] if study else study_names(root):
        for replicates in replicates_by_name(read_study(root, known)).values():
            spec = next((spec for spec in replicates if spec.directory == row.path.name), None)
            if spec is not None:
                return found, replicates if name == spec.name else [spec]
    return found, [_described(row)]


def _described(row: RowDir) -> StudyRow:
    """A row by its own records, whatever studies ask of it."""
    winner = find_record(row.winner, WinnerRecord)
    seeds, trials = (winner.seeds, winner.trials) if winner else ((), len(row.trials()))
    name = row.path.absolute().name
    return StudyRow(name=name, label=name, group=None, directory=name, trials=trials, seeds=seeds, teachers=())


def row_difference(runs_a: Runs, a: Sequence[StudyRow], runs_b: Runs, b: Sequence[StudyRow]) -> RowDifference:
    """Compare two rows, given by their replicates: configuration and winner of the first, code and results of all.

    Raises:
        UserError: a row's record cannot be read.
    """
    sides = [(runs, specs[0], _collected(runs, specs)) for runs, specs in ((runs_a, a), (runs_b, b))]
    return RowDifference(
        a[0].directory,
        b[0].directory,
        differences([_configuration(runs, spec) for runs, spec, _ in sides]),
        differences([_winner(runs, spec) for runs, spec, _ in sides]),
        differences([_code(runs, row) for runs, _, row in sides]),
        tuple(_result(metric, *((runs, row) for runs, _, row in sides)) for metric in METRICS),
    )


def study_difference(runs: Runs, a: str, b: str) -> StudyDifference:
    """Compare two studies of a root, row by row.

    Raises:
        UserError: a record cannot be read.
    """
    first, second = (read_study(runs.root, name) for name in (a, b))
    ours, theirs = (replicates_by_name(study) for study in (first, second))
    common = [name for name in ours if name in theirs]
    same = tuple(name for name in common if _directories(ours[name]) == _directories(theirs[name]))
    settings = [study.model_dump(include={"title", "control", "max_gpu_hours"}) for study in (first, second)]
    budgets = [{name: _budget(rows[name]) for name in common} for rows in (ours, theirs)]
    return StudyDifference(
        a,
        b,
        differences([{**one, "rows": budget} for one, budget in zip(settings, budgets, strict=True)]),
        tuple(name for name in ours if name not in theirs),
        tuple(name for name in theirs if name not in ours),
        same,
        {name: row_difference(runs, ours[name], runs, theirs[name]) for name in common if name not in same},
    )


def _directories(replicates: Sequence[StudyRow]) -> list[str]:
    return [row.directory for row in replicates]


def _budget(replicates: Sequence[StudyRow]) -> Facts:
    row = replicates[0]
    budget = {"trials": row.trials, "seeds": len(row.seeds), "label": row.label, "group": row.group}
    return {**budget, "replicates": len(replicates)}


def _collected(runs: Runs, specs: Sequence[StudyRow]) -> RowRuns:
    name = specs[0].name
    return collect_record(runs, StudyRecord(name=name, title=name, control=None, rows=tuple(specs))).rows[0]


def _configuration(runs: Runs, spec: StudyRow) -> Facts:
    record = read_record(RowDir(runs.root / "rows" / spec.directory).row, RowRecord)
    known = {key: value for key, value in record.identity.model_dump().items() if value not in (None, {})}
    return {**known, "trials": spec.trials, "seeds": len(spec.seeds)}


def _winner(runs: Runs, spec: StudyRow) -> Facts:
    winner = find_record(RowDir(runs.root / "rows" / spec.directory).winner, WinnerRecord)
    return {} if winner is None else {"trial": winner.trial, "value": winner.value, **winner.params}


def _code(runs: Runs, row: RowRuns) -> Facts:
    """The code and packages that the row's own trials ran; several where they changed."""
    ran = pd.concat([row.tuning["directory"], row.final_runs["directory"]])
    attempts = runs.attempts[runs.attempts["directory"].isin(ran)]
    names = {"git.commit": "commit", "git.diff": "uncommitted changes", "code": "source"}
    names |= {str(column): str(column) for column in attempts if str(column).startswith("versions.")}
    found = {
        name: sorted({str(value)[:12] for value in attempts[column].dropna()})
        for column, name in names.items()
        if column in attempts
    }
    return {name: ", ".join(values) for name, values in found.items() if any(values)}


def _result(metric: str, a: tuple[Runs, RowRuns], b: tuple[Runs, RowRuns]) -> Result:
    column, (_, first), (_, second) = f"test_{metric}", a, b
    ours, theirs = (row_score(row, column, "sd") for row in (first, second))
    tested = _tested(metric, a, b) if ours.n and theirs.n else None
    return Result(metric, ours.value, theirs.value, ours.spread, theirs.spread, ours.n or 0, theirs.n or 0, tested)


def _tested(metric: str, a: tuple[Runs, RowRuns], b: tuple[Runs, RowRuns]) -> Difference:
    """Paired by replicate where both rows have the same splits under one root, else by Welch's test."""
    (runs, first), (others, second) = a, b
    if not (first.is_replicated or second.is_replicated):
        return difference_of(*(percents(row.measured, f"test_{metric}") for row in (first, second)))
    if runs is others and have_same_splits(first, second):
        scores = compared_scores(runs, {"a": first, "b": second}, metric)
        tests = tests_to_control(scores, {"a": "b"})
        if tests:
            return as_difference(tests["a"])
    return difference_of(*(100 * np.array(row.means(f"test_{metric}")) for row in (first, second)))


def as_text(found: RowDifference | StudyDifference) -> str:
    """A difference as lines for people."""
    lines = _row_lines(found) if isinstance(found, RowDifference) else _study_lines(found)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _study_lines(found: StudyDifference) -> Iterator[str]:
    yield f"A  study {found.a}"
    yield f"B  study {found.b}"
    yield from _section("settings", found.settings)
    for title, names in (("only in A", found.only_a), ("only in B", found.only_b), ("the same row", found.same)):
        if names:
            yield f"\n{title}: {', '.join(names)}"
    for name, row in found.rows.items():
        yield f"\nrow {name}"
        yield from _row_lines(row)


def _row_lines(found: RowDifference) -> Iterator[str]:
    yield f"A  {found.a}"
    yield f"B  {found.b}"
    yield from _section("configuration", _without_lone_teacher(found.configuration))
    yield from _section("winner", found.winner)
    yield from _section("code", found.code)
    yield "\nresults: test, %, mean ± sample SD over n seeds or replicates; A minus B with its 95 % interval"
    table = [("", "A", "B", "A - B")]
    for one in found.results:
        tested = "" if one.difference is None else difference_text(one.difference)
        table.append((one.metric, _mean(one.a, one.sd_a, one.n_a), _mean(one.b, one.sd_b, one.n_b), tested))
    yield from (f"  {line}" for line in columns(table))


def _without_lone_teacher(configuration: Differing) -> Differing:
    """A teacher that only one of the rows has in one line instead of one for each of its settings."""
    width = configuration.get("teacher.network.width", ())
    if None not in width:
        return configuration
    others = {key: values for key, values in configuration.items() if not key.startswith("teacher.")}
    return {**others, "teacher": [None if value is None else "yes (--format json lists it)" for value in width]}


def _section(title: str, differing: Differing) -> Iterator[str]:
    if not differing:
        yield f"\n{title}: no difference"
        return
    yield f"\n{title}"
    lines = [("", "A", "B"), *((key, *map(_shown, values)) for key, values in differing.items())]
    yield from (f"  {line}" for line in columns(lines))


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _mean(mean: float | None, sd: float | None, n: int) -> str:
    return "-" if mean is None else f"{mean:.2f}{'' if sd is None else f' ± {sd:.2f}'} (n = {n})"
