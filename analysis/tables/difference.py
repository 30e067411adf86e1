"""Two rows, or two studies, and where they differ: configuration, code and results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.loading.runs import Runs, load
from analysis.loading.study_rows import RowRuns, collect_record
from analysis.stats.scores import METRICS, Difference, difference_of, mean_score, percents
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
    """A test metric of two rows, in per cent: means, sample SDs and numbers of seeds, and A less B over seeds."""

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


def described_row(root: Path, name: str, study: str | None) -> tuple[Path, StudyRow]:
    """Find a row (see `mmkd.find_trial.find_row`): its root, and its description in a study or by its own records.

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
    specs = (spec for known in ([study] if study else study_names(root)) for spec in read_study(root, known).rows)
    spec = next((spec for spec in specs if spec.directory == row.path.name), None)
    return row.path.absolute().parents[1], spec or _described(row)


def _described(row: RowDir) -> StudyRow:
    """A row by its own records, whatever studies ask of it."""
    winner = find_record(row.winner, WinnerRecord)
    seeds, trials = (winner.seeds, winner.trials) if winner else ((), len(row.trials()))
    name = row.path.absolute().name
    return StudyRow(name=name, label=name, group=None, directory=name, trials=trials, seeds=seeds, teachers=())


def row_difference(runs_a: Runs, a: StudyRow, runs_b: Runs, b: StudyRow) -> RowDifference:
    """Compare two rows.

    Raises:
        UserError: a row's record cannot be read.
    """
    sides = [(runs, spec, _collected(runs, spec)) for runs, spec in ((runs_a, a), (runs_b, b))]
    return RowDifference(
        a.directory,
        b.directory,
        differences([_configuration(runs, spec) for runs, spec, _ in sides]),
        differences([_winner(runs, spec) for runs, spec, _ in sides]),
        differences([_code(runs, row) for runs, _, row in sides]),
        tuple(_result(metric, *(row for _, _, row in sides)) for metric in METRICS),
    )


def study_difference(runs: Runs, a: str, b: str) -> StudyDifference:
    """Compare two studies of a root, row by row.

    Raises:
        UserError: a record cannot be read.
    """
    first, second = (read_study(runs.root, name) for name in (a, b))
    ours, theirs = ({row.name: row for row in study.rows} for study in (first, second))
    common = [name for name in ours if name in theirs]
    same = tuple(name for name in common if ours[name].directory == theirs[name].directory)
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


def _budget(row: StudyRow) -> Facts:
    return {"trials": row.trials, "seeds": len(row.seeds), "label": row.label, "group": row.group}


def _collected(runs: Runs, spec: StudyRow) -> RowRuns:
    return collect_record(runs, StudyRecord(name=spec.name, title=spec.name, control=None, rows=(spec,))).rows[0]


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


def _result(metric: str, a: RowRuns, b: RowRuns) -> Result:
    column = f"test_{metric}"
    first, second = (mean_score(row.final_runs, column, "sd") for row in (a, b))
    both = bool(first.n and second.n)
    tested = difference_of(percents(a.measured, column), percents(b.measured, column)) if both else None
    return Result(metric, first.value, second.value, first.spread, second.spread, first.n or 0, second.n or 0, tested)


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
    yield "\nresults: test, %, mean ± sample standard deviation over n seeds; A minus B with Welch's 95 % interval"
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
