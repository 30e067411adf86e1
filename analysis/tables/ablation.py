"""A study's ablation table: its teachers, then its rows in the study's order, with warnings and notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pandas as pd

from analysis.loading.predictions import predictions
from analysis.loading.runs import Runs
from analysis.loading.study_rows import FINISHED, RowRuns, collect, scored, teacher_families
from analysis.stats.error_bars import Error
from analysis.stats.scores import METRICS, Score, mean_score, score_rows
from analysis.tables.checks import check_rows
from analysis.tables.model import Cell, Column, Section, Table, TableRow
from analysis.tables.notes import legend, notes
from analysis.tables.rounding import with_text
from analysis.tables.table_provenance import provenance
from analysis.tables.training_cost import Clock, choose_clock, spent
from mmkd.errors import choose
from mmkd.records import read_study

COLUMNS = (
    Column("accuracy", "accuracy\N{NO-BREAK SPACE}%", "spread", "higher"),
    Column("weighted_f1", "weighted F1\N{NO-BREAK SPACE}%", "spread", "higher"),
    Column("macro_f1", "macro F1\N{NO-BREAK SPACE}%", "spread", "higher"),
    Column("seeds", "n", "ratio"),
    Column(
        "difference", "Δ\N{NO-BREAK SPACE}accuracy [95\N{NO-BREAK SPACE}%\N{NO-BREAK SPACE}CI]", "difference", "higher"
    ),
    Column("p", "p (Holm)", "p"),
    Column("gap", "gap\N{NO-BREAK SPACE}%", "count", "higher"),
    Column("majority_share", "maj. %", "mean"),
    Column("parameters", "params", "count"),
    Column("compression", "compr.", "times"),
    Column("trials", "trials", "ratio"),
    Column("cost", "", "cost"),
    Column("paper_accuracy", "paper's acc. %", "mean"),
    Column("paper_f1", "paper's F1 %", "mean"),
)
PAPER_DATA = "CMU-MOSEI"
"""The paper's own figures are shown where the data are these."""
DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Basis:
    """Facts that all rows of a table share."""

    rows: Sequence[RowRuns]
    control: RowRuns | None
    scores: Mapping[str, Mapping[str, Score]]
    clock: Clock
    error: Error
    footnotes: list[str]


def table(
    runs: Runs,
    study: str,
    *,
    error: Error = "sd",
    columns: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
) -> Table:
    """The table of the study called `study` under the root of `runs`.

    Args:
        runs: what `analysis.load` gave.
        study: its name.
        error: what stands behind ±: the seeds' standard deviation, the standard error, or half the 95 % interval.
        columns: keys of `COLUMNS`, in the order wanted; by default all that apply.
        rows: names of the rows to show beside the control; by default all. Tests and ranks are among these alone.

    Raises:
        UserError: there is no such study, column or row, or the study's file is broken.
    """
    found = collect(runs, study, rows)
    chosen, control = found.rows, found.control
    basis = Basis(chosen, control, score_rows(chosen, control, error), choose_clock(chosen), error, [])
    sections = [
        Section(title, (*_teacher_rows(basis, members), *(_student_row(basis, row) for row in members)))
        for title, group in groupby(chosen, key=lambda row: row.spec.group)
        for members in [list(group)]
    ]
    samples = count_test_samples(runs, chosen)
    whole = len(read_study(runs.root, study).rows)
    part = f"rows: {len(chosen)} of the study's {whole}; tests and ranks are among these alone"
    shown = _columns(basis, columns)
    return Table(
        study,
        found.record.title,
        shown,
        tuple(with_text(sections, COLUMNS, samples)),
        tuple(basis.footnotes) if any(column.key == "gap" for column in shown) else (),
        tuple(finding.text for finding in check_rows(runs, chosen)),
        legend(chosen, control),
        (*([part] if len(chosen) < whole else []), *notes(chosen, control, samples, error, basis.clock.unit)),
        provenance(runs, found),
    )


def _columns(basis: Basis, wanted: Sequence[str] | None) -> tuple[Column, ...]:
    """The columns to show, the cost's called by its unit."""
    known = {column.key: replace(column, label=column.label or basis.clock.unit) for column in COLUMNS}
    if wanted is not None:
        return tuple(known[choose("column", key, known)] for key in wanted)
    left_out = set() if _on_the_papers_data(basis.rows) else {"paper_accuracy", "paper_f1"}
    if basis.control is None:
        left_out |= {"difference", "p"}
    return tuple(column for key, column in known.items() if key not in left_out)


def count_test_samples(runs: Runs, rows: Sequence[RowRuns]) -> int:
    """Samples of the test split (of the smallest, should the rows' data differ); 0 while no run has been measured."""
    measured = [pd.concat([row.measured["directory"], row.measured_teachers["directory"]]) for row in rows]
    first = dict.fromkeys(directories.iloc[0] for directories in measured if len(directories))
    return min((len(predictions(runs.root / directory)["test"].labels) for directory in first), default=0)


def _teacher_rows(basis: Basis, members: Sequence[RowRuns]) -> Iterator[TableRow]:
    """The teachers of a section's rows, each once, averaged over seeds."""
    for label, family in teacher_families(members):
        digest = str(family["teacher_family"].iloc[0])
        status = "" if len(scored(family)) else "no score yet"
        cells = {metric: Cell.of(mean_score(family, f"test_{metric}", basis.error)) for metric in METRICS}
        cells |= _measured(family, basis.error) | {"cost": _cost(basis, family)}
        taught = [row for row in members if digest in set(row.teachers["teacher_family"])]
        paper = next((row.spec.paper for row in taught if row.spec.paper), None)
        if paper:
            cells |= _paper_cells(paper.teacher_accuracy, paper.teacher_f1)
        yield TableRow(digest, label, "teacher", status, _filled(cells))


def _student_row(basis: Basis, row: RowRuns) -> TableRow:
    cells = {metric: Cell.of(basis.scores[metric][row.spec.name]) for metric in METRICS}
    cells |= _measured(row.final_runs, basis.error) | {
        "gap": _gap(basis, row),
        "compression": _compression(row),
        "trials": _trials(row),
        "cost": _cost(basis, pd.concat([row.tuning, row.final_runs])),
    }
    difference = cells["accuracy"].difference
    if difference is not None:
        cells["difference"] = Cell(difference.value, difference=difference)
        cells["p"] = Cell(difference.corrected)
    if row.spec.paper:
        cells |= _paper_cells(row.spec.paper.accuracy, row.spec.paper.f1)
    return TableRow(row.spec.name, row.spec.label, "student", row.status, _filled(cells))


def _filled(cells: dict[str, Cell]) -> dict[str, Cell]:
    return {column.key: cells.get(column.key, Cell()) for column in COLUMNS}


def _on_the_papers_data(rows: Sequence[RowRuns]) -> bool:
    return any(row.spec.paper for row in rows) and any(PAPER_DATA in row.fact("source") for row in rows)


def _paper_cells(accuracy: float | None, f1: float | None) -> dict[str, Cell]:
    return {"paper_accuracy": Cell(accuracy), "paper_f1": Cell(f1)}


def _measured(wanted: pd.DataFrame, error: Error) -> dict[str, Cell]:
    """The number of runs with a score, their majority-class prediction rate, and their parameters."""
    if wanted.empty:
        return {}
    done = scored(wanted)
    cells = {"seeds": Cell(float(len(done)), n=len(done), wanted=len(wanted))}
    if len(done):
        cells["majority_share"] = Cell.of(mean_score(wanted, "test_majority_share", error))
        cells["parameters"] = Cell(float(done["parameters"].mean()))
    return cells


def _compression(row: RowRuns) -> Cell:
    """The teacher's parameters over the student's; empty where there is no teacher."""
    teacher, student = (runs["parameters"].mean() for runs in (row.measured_teachers, row.measured))
    return Cell() if pd.isna(teacher) or pd.isna(student) else Cell(float(teacher / student))


def _trials(row: RowRuns) -> Cell:
    """Trials that were sampled, and how many of them have a result."""
    finished = int(row.tuning["status"].isin(FINISHED).sum())  # more than sampled while another study extends the row
    return Cell(float(row.sampled), n=min(finished, row.sampled), wanted=row.sampled)


def _cost(basis: Basis, runs: pd.DataFrame) -> Cell:
    seconds = spent(runs, basis.clock.column)
    return Cell() if seconds is None else Cell(seconds / basis.clock.seconds)


def _gap(basis: Basis, row: RowRuns) -> Cell:
    """(S_KD - S) / (T - S) on accuracy in per cent, or a dash with the reason."""
    control = basis.control
    student = row.measured["test_accuracy"].mean()
    if row is control or pd.isna(student):
        return Cell()
    teacher = row.measured_teachers["test_accuracy"].mean()
    baseline = control.measured["test_accuracy"].mean() if control else float("nan")
    reason = _why_no_gap(row, control, teacher, baseline)
    if not reason:
        return Cell(100 * float((student - baseline) / (teacher - baseline)))
    if reason not in basis.footnotes:
        basis.footnotes.append(reason)
    return Cell(text=DASH, footnote=basis.footnotes.index(reason) + 1)


def _why_no_gap(row: RowRuns, control: RowRuns | None, teacher: float, baseline: float) -> str:
    if control is None:
        return "no gap: the study names no control"
    if row.teachers.empty:
        return "no gap: this row has no teacher"
    if pd.isna(baseline):
        return "no gap: the control has no score yet"
    if pd.isna(teacher):
        return "no gap: the teacher has no score yet"
    if row.fact("fingerprint") != control.fact("fingerprint"):
        return "no gap: the control was measured on other data"
    majority = row.measured["test_majority_accuracy"].mean()
    if min(teacher, baseline) <= majority:
        return "no gap: the teacher or the control does no better than always predicting the most frequent class"
    if teacher <= baseline:
        return "no gap: the teacher is not better than the control"
    return ""
