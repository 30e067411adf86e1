"""A study's ablation table: its teachers, then its rows in the study's order, with what must be said about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import pandas as pd

from analysis.captions import notes, warnings
from analysis.evidence import FINISHED, Evidence, collect, scored
from analysis.loading import Runs, predictions
from analysis.model import Cell, Column, Section, Table, TableRow
from analysis.records import read_study
from analysis.uncertainty import column_decimals

COLUMNS = (
    Column("accuracy", "accuracy %", "spread"),
    Column("weighted_f1", "weighted F1 %", "spread"),
    Column("macro_f1", "macro F1 %", "spread"),
    Column("seeds", "n", "ratio"),
    Column("majority_share", "maj. %", "mean"),
    Column("gap", "gap %", "count"),
    Column("parameters", "params", "count"),
    Column("trials", "trials", "ratio"),
    Column("seconds", "seconds", "count"),
)
PAPER_COLUMNS = (Column("paper_accuracy", "paper's acc. %", "mean"), Column("paper_f1", "paper's F1 %", "mean"))
ALL_COLUMNS = COLUMNS + PAPER_COLUMNS
PAPER_DATA = "CMU-MOSEI"
"""The paper's own figures are shown where the data are these."""
DASH = "\N{EN DASH}"


def table(runs: Runs, study: str) -> Table:
    """The table of the study called `study` under the root of `runs`.

    Raises:
        UserError: there is no such study, or its file is broken.
    """
    spec = read_study(runs.root, study)
    rows = collect(runs, spec)
    samples = count_test_samples(runs, rows)
    control = next((row for row in rows if row.spec.name == spec.control), None)
    footnotes: list[str] = []
    sections = [
        Section(title, (*_teacher_rows(members), *(_student_row(row, control, footnotes) for row in members)))
        for title, group in groupby(rows, key=lambda row: row.spec.group)
        for members in [list(group)]
    ]
    return Table(
        spec.name,
        spec.title,
        ALL_COLUMNS if _on_the_papers_data(rows) else COLUMNS,
        tuple(_with_text(sections, samples)),
        tuple(footnotes),
        tuple(warnings(runs, rows)),
        tuple(notes(rows, control, samples)),
    )


def count_test_samples(runs: Runs, rows: Sequence[Evidence]) -> int:
    """Samples of the test split (of the smallest, should the rows' data differ); 0 while no run has been measured."""
    measured = [scored(pd.concat([row.confirming, row.teachers]))["directory"] for row in rows]
    first = dict.fromkeys(directories.iloc[0] for directories in measured if len(directories))
    return min((len(predictions(runs.root / directory)["test"].labels) for directory in first), default=0)


def _teacher_rows(members: Sequence[Evidence]) -> Iterator[TableRow]:
    """The teachers of a section's rows, each once, averaged over seeds."""
    teachers = pd.concat([row.teachers for row in members])
    teachers = teachers[~teachers.index.duplicated()]
    families = [family for _, family in teachers.groupby("teacher_family", sort=False)]
    labels = [_teacher_label(family) for family in families]
    for family, label in zip(families, labels, strict=True):
        digest = str(family["teacher_family"].iloc[0])
        name = label if labels.count(label) == 1 else f"{label} {digest[:6]}"
        status = "" if len(scored(family)) else "no score yet"
        cells = _measured_cells(family) | {"seconds": _seconds(family["seconds"])}
        paper = next((row.spec.paper for row in members if row.spec.paper and digest in _families(row)), None)
        if paper:
            cells |= _paper_cells(paper.teacher_accuracy, paper.teacher_f1)
        yield TableRow(digest, name, "teacher", status, _filled(cells))


def _student_row(row: Evidence, control: Evidence | None, footnotes: list[str]) -> TableRow:
    cells = _measured_cells(row.confirming) | {
        "gap": _gap(row, control, footnotes),
        "trials": _trials(row),
        "seconds": _seconds(pd.concat([row.tuning["seconds"], row.confirming["seconds"]])),
    }
    if row.spec.paper:
        cells |= _paper_cells(row.spec.paper.accuracy, row.spec.paper.f1)
    return TableRow(row.spec.name, row.spec.label, "student", row.status, _filled(cells))


def _on_the_papers_data(rows: Sequence[Evidence]) -> bool:
    sources = [str(row.row["source"]) for row in rows if row.row is not None]
    return any(row.spec.paper for row in rows) and any(PAPER_DATA in source for source in sources)


def _families(row: Evidence) -> set[str]:
    return {str(family) for family in row.teachers["teacher_family"]}


def _paper_cells(accuracy: float | None, f1: float | None) -> dict[str, Cell]:
    return {"paper_accuracy": Cell(accuracy), "paper_f1": Cell(f1)}


def _teacher_label(family: pd.DataFrame) -> str:
    branch = family["branch"].iloc[0]
    return "Teacher" if pd.isna(branch) else f"Teacher, {branch} branch"


def _filled(cells: dict[str, Cell]) -> dict[str, Cell]:
    return {column.key: cells.get(column.key, Cell()) for column in ALL_COLUMNS}


def _measured_cells(wanted: pd.DataFrame) -> dict[str, Cell]:
    """Means over the runs that have a score; `wanted` has one line a run that was asked for."""
    done = scored(wanted)
    if wanted.empty:
        return {}
    cells = {"seeds": Cell(float(len(done)), n=len(done), wanted=len(wanted))}
    if done.empty:
        return cells
    for key in ("accuracy", "weighted_f1", "macro_f1", "majority_share"):
        values = 100 * done[f"test_{key}"]
        spread = float(values.std(ddof=1)) if len(values) > 1 else None
        cells[key] = Cell(float(values.mean()), spread, len(done), len(wanted))
    cells["parameters"] = Cell(float(done["parameters"].mean()))
    return cells


def _trials(row: Evidence) -> Cell:
    """Trials that were asked, and how many of them ended with a result."""
    finished = int(row.tuning["status"].isin(FINISHED).sum())  # more than asked while another study extends the row
    return Cell(float(row.asked), n=min(finished, row.asked), wanted=row.asked)


def _seconds(spent: pd.Series) -> Cell:
    return Cell(float(spent.sum())) if spent.notna().any() else Cell()


def _gap(row: Evidence, control: Evidence | None, footnotes: list[str]) -> Cell:
    """(S_KD - S) / (T - S) on accuracy in per cent, or a dash with the reason."""
    student = scored(row.confirming)["test_accuracy"].mean()
    if row is control or pd.isna(student):
        return Cell()
    teacher = scored(row.teachers)["test_accuracy"].mean()
    baseline = scored(control.confirming)["test_accuracy"].mean() if control else float("nan")
    reason = _why_no_gap(row, control, teacher, baseline)
    if not reason:
        return Cell(100 * float((student - baseline) / (teacher - baseline)))
    if reason not in footnotes:
        footnotes.append(reason)
    return Cell(text=DASH, footnote=footnotes.index(reason) + 1)


def _why_no_gap(row: Evidence, control: Evidence | None, teacher: float, baseline: float) -> str:
    if control is None:
        return "no gap: the study names no control"
    if row.teachers.empty:
        return "no gap: this row has no teacher"
    if pd.isna(baseline):
        return "no gap: the control has no score yet"
    if pd.isna(teacher):
        return "no gap: the teacher has no score yet"
    if row.row is not None and control.row is not None and row.row["fingerprint"] != control.row["fingerprint"]:
        return "no gap: the control was measured on other data"
    majority = scored(row.confirming)["test_majority_accuracy"].mean()
    if min(teacher, baseline) <= majority:
        return "no gap: the teacher or the control does no better than always predicting the commonest class"
    if teacher <= baseline:
        return "no gap: the teacher is not better than the control"
    return ""


def _with_text(sections: Sequence[Section], samples: int) -> Iterator[Section]:
    """The sections with every value rounded, one precision a column."""
    rows = [row for section in sections for row in section.rows]
    decimals = {
        column.key: column_decimals([row.cells[column.key].spread or 0.0 for row in rows], samples)
        for column in ALL_COLUMNS
    }
    for section in sections:
        yield Section(section.title, tuple(_row_with_text(row, decimals) for row in section.rows))


def _row_with_text(row: TableRow, decimals: dict[str, int]) -> TableRow:
    cells = {
        column.key: replace(cell, text=cell_text(column, cell, decimals[column.key]))
        for column in ALL_COLUMNS
        for cell in [row.cells[column.key]]
    }
    return replace(row, cells=cells)


def cell_text(column: Column, cell: Cell, decimals: int) -> str:
    """A cell as it is shown."""
    if cell.value is None:
        return cell.text
    if column.style == "ratio":
        return f"{cell.n}" if cell.n == cell.wanted else f"{cell.n}/{cell.wanted}"
    if column.style == "count":
        return f"{cell.value:z,.0f}"
    mean = f"{cell.value:.{decimals}f}"
    shows_spread = column.style == "spread" and cell.spread is not None
    return f"{mean} ± {cell.spread:.{decimals}f}" if shows_spread else mean
