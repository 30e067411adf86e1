"""A study's ablation table: its teachers, then its rows in the study's order, with warnings and notes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pandas as pd

from analysis.checks.finding import EXTENDED
from analysis.loading.outcomes import outcome
from analysis.loading.replicate_runs import FINISHED, scored
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect, replicates_by_name, teacher_families
from analysis.loading.study_trials import first_lines
from analysis.stats.error_bars import Error
from analysis.stats.gap import Contrast, Gap, gap_recovered
from analysis.stats.paired import paired
from analysis.stats.references import compute_references
from analysis.stats.replicates import METRICS, compared_scores, teacher_scores
from analysis.stats.scores import Score, family_score, percents, row_score, score_rows
from analysis.tables.checks import check_rows
from analysis.tables.difference_cells import (
    DIFFERENCES,
    check_margin,
    difference_cells,
    difference_notes,
    unshown_differences,
    with_intervals_over_samples,
)
from analysis.tables.model import Cell, Column, Section, Table, TableRow
from analysis.tables.notes import brief_notes, legend, notes
from analysis.tables.reference_rows import reference_notes, reference_section
from analysis.tables.rounding import with_text
from analysis.tables.table_provenance import provenance
from analysis.tables.training_cost import Clock, choose_clock, spent
from analysis.tables.verdict import verdict
from mmkd.errors import choose
from mmkd.records import read_study
from mmkd.rundir import Root
from mmkd.study_plan import plan_note

COLUMNS = (
    Column("accuracy", "accuracy\N{NO-BREAK SPACE}%", "spread", "higher"),
    Column("weighted_f1", "weighted F1\N{NO-BREAK SPACE}%", "spread", "higher"),
    Column("macro_f1", "macro F1\N{NO-BREAK SPACE}%", "spread", "higher"),
    Column("seeds", "n", "ratio"),
    *DIFFERENCES,
    Column("gap", "gap\N{NO-BREAK SPACE}%", "gap", "higher"),
    Column("majority_share", "maj. %", "mean"),
    Column("parameters", "params", "count"),
    Column("compression", "compr.", "times"),
    Column("trials", "trials", "ratio"),
    Column("cost", "", "cost"),
    Column("paper_accuracy", "paper's acc. %", "mean"),
    Column("paper_f1", "paper's F1 %", "mean"),
)
PAPER_DATA = re.compile(r"CMU-MOSEI(, MulT's pickle \(unaligned\))?")
PAPER_PRIMARY, PAPER_OTHERS = "video", ("audio", "language")
"""The paper's own figures are shown beside students of these data and modalities, in this order.

Aligned files of CMU-MOSEI, and those with other features, are other data.
"""
DASH = "\N{EN DASH}"
NOT_BETTER = "no gap: the teacher is not shown to be better than the control (95 % interval)"
ONE_TUNING = (
    "Each row is one tuned configuration: ± and p cover other seeds of it, not other splits or another tuning of the "
    "method"
)
"""Below the title of a study without replicates, whose column of p is called after it too."""
P_OF_ONE_TUNING = "p (Holm), one\N{NO-BREAK SPACE}tuning"


@dataclass(frozen=True)
class Basis:
    """Facts that all rows of a table share; `control` is the study's, `controls` are the rows' own by their names."""

    runs: Runs
    rows: Sequence[RowRuns]
    control: RowRuns | None
    controls: Mapping[str, RowRuns | None]
    scores: Mapping[str, Mapping[str, Score]]
    clock: Clock
    error: Error
    footnotes: list[str]

    @property
    def is_replicated(self) -> bool:
        """True if the unit is the replicate."""
        return any(row.is_replicated for row in self.rows)


def table(
    runs: Runs,
    study: str,
    *,
    error: Error = "sd",
    columns: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    margin: float | None = None,
    tell: Callable[[str], object] = lambda what: None,
) -> Table:
    """The table of the study called `study` under the root of `runs`.

    Args:
        runs: what `analysis.load` gave.
        study: its name.
        error: what stands behind ±: the standard deviation over seeds or replicates, the standard error, or half the
            95 % interval.
        columns: keys of `COLUMNS`, in the order wanted; by default all that apply.
        rows: names of the rows to show beside the control; by default all. Tests and ranks are among these alone.
        margin: points of accuracy that do not matter: adds tests that rows equal their controls within it.
        tell: called with the next step, where reference models are fitted for the first time, which takes seconds.

    Raises:
        UserError: there is no such study, column or row, the study's file is broken, or the margin makes no sense.
    """
    check_margin(margin, columns)
    found = collect(runs, study, rows)
    chosen, control = found.rows, found.control
    controls = {row.spec.name: found.control_of(row) for row in chosen}
    scores = dict(score_rows(runs, chosen, control, error, margin))
    scores["accuracy"] = with_intervals_over_samples(runs, controls, chosen, scores["accuracy"])
    basis = Basis(runs, chosen, control, controls, scores, choose_clock(chosen), error, [])
    missing = compute_references(runs, chosen, tell)
    sections = [
        *(
            Section(title, (*_teacher_rows(basis, members), *(_student_row(basis, row) for row in members)))
            for title, group in groupby(chosen, key=lambda row: row.spec.group)
            for members in [list(group)]
        ),
        *reference_section(runs, chosen, error, _filled),
    ]
    samples = count_test_samples(runs, chosen)
    whole = len(replicates_by_name(read_study(runs.root, study)))
    shown = _columns(basis, columns, margin)
    has_untested = any(row.cells["accuracy"].is_untested for section in sections for row in section.rows)
    groups = count_test_groups(runs, chosen)
    compared = difference_notes(chosen, control, scores["accuracy"].values(), margin, groups)
    findings = list(check_rows(runs, chosen))
    noted = [plan_note(Root(runs.root), study), *(found.text for found in findings if found.kind == EXTENDED)]
    if len(chosen) < whole:
        noted.append(f"rows: {len(chosen)} of the study's {whole}; tests and ranks are among these alone")
    return Table(
        study,
        found.record.title,
        shown,
        tuple(with_text(sections, COLUMNS, samples)),
        tuple(basis.footnotes) if any(column.key == "gap" for column in shown) else (),
        tuple(finding.text for finding in findings if finding.kind != EXTENDED),
        legend(chosen, control, has_untested=has_untested),
        (
            *filter(None, noted),
            *reference_notes(runs, chosen, missing),
            *notes(runs, chosen, control, samples, error, basis.clock.unit),
            *compared,
        ),
        provenance(runs, found),
        "" if basis.is_replicated else ONE_TUNING,
        verdict(runs, chosen, control, scores["accuracy"]),
        (*filter(None, noted), *brief_notes(chosen, error)),
    )


def _columns(basis: Basis, wanted: Sequence[str] | None, margin: float | None) -> tuple[Column, ...]:
    """The columns to show, the cost's called by its unit."""
    known = {column.key: replace(column, label=column.label or basis.clock.unit) for column in COLUMNS}
    if not basis.is_replicated:
        known["p"] = replace(known["p"], label=P_OF_ONE_TUNING)
    if margin is not None:
        known["equivalence"] = replace(known["equivalence"], label=f"p within ±{margin:g}")
    if wanted is not None:
        return tuple(known[choose("column", key, known)] for key in wanted)
    left_out = set() if any(map(_is_the_papers, basis.rows)) else {"paper_accuracy", "paper_f1"}
    left_out |= unshown_differences(basis.rows, basis.control, basis.scores["accuracy"].values(), margin)
    return tuple(column for key, column in known.items() if key not in left_out)


def count_test_samples(runs: Runs, rows: Sequence[RowRuns]) -> int:
    """Samples that were tested, in all replicates; 0 while no run has been measured.

    The fewest of a row, should the rows' data differ.
    """
    counts = []
    for row in rows:
        measured = [one.measured if len(one.measured) else one.measured_teachers for one in row.replicates]
        first = [outcome(runs, done["directory"].iloc[0]).ids for done in measured if len(done)]
        counts.append(len(set().union(*first)))
    return min((number for number in counts if number), default=0)


def count_test_groups(runs: Runs, rows: Sequence[RowRuns]) -> int:
    """Groups of the test samples of the first run that was measured; 0 if the data have none."""
    first = next((row.measured["directory"].iloc[0] for row in rows if len(row.measured)), None)
    return 0 if first is None else len(set(outcome(runs, first).groups))


def _teacher_rows(basis: Basis, members: Sequence[RowRuns]) -> Iterator[TableRow]:
    """The teachers of a section's rows, each once, averaged over seeds, or over seeds and then replicates."""
    for label, family in teacher_families(members):
        digest = str(family["teacher_family"].iloc[0])
        status = "" if len(scored(family)) else "no score yet"
        cells = {metric: Cell.of(_family_score(basis, family, metric)) for metric in (*METRICS, "majority_share")}
        taught = [row for row in members if digest in set(row.teachers["teacher_family"])]
        tried = first_lines(pd.concat([row.teacher_trials for row in taught]))
        cells |= _measured(cells, family) | {"cost": _cost(basis, first_lines(pd.concat([family, tried])))}
        if len(tried):
            ended = int(tried["status"].isin(FINISHED).sum())
            cells["trials"] = Cell(float(len(tried)), n=ended, wanted=len(tried))
        paper = next((row.spec.paper for row in taught if _is_the_papers(row)), None)
        if paper:
            cells |= _paper_cells(paper.teacher_accuracy, paper.teacher_f1)
        yield TableRow(digest, label, "teacher", status, _filled(cells))


def _student_row(basis: Basis, row: RowRuns) -> TableRow:
    cells = {metric: Cell.of(basis.scores[metric][row.spec.name]) for metric in METRICS}
    cells["majority_share"] = Cell.of(row_score(row, "test_majority_share", basis.error))
    cells |= _measured(cells, row.final_runs) | {
        "gap": _gap(basis, row),
        "compression": _compression(row),
        "trials": _trials(row),
        "cost": _cost(basis, pd.concat([row.tuning, row.final_runs])),
    }
    cells |= difference_cells(cells["accuracy"])
    if row.spec.paper and _is_the_papers(row):
        cells |= _paper_cells(row.spec.paper.accuracy, row.spec.paper.f1)
    return TableRow(row.spec.name, row.spec.label, "student", row.status, _filled(cells), row.control)


def _filled(cells: Mapping[str, Cell]) -> dict[str, Cell]:
    return {column.key: cells.get(column.key, Cell()) for column in COLUMNS}


def _is_the_papers(row: RowRuns) -> bool:
    """True if the paper has figures for the row, and had a student of these modalities."""
    others = [name for name in row.fact("modalities").split(", ") if name != PAPER_PRIMARY]
    of_the_paper = (row.fact("primary"), *others) == (PAPER_PRIMARY, *PAPER_OTHERS)
    return row.spec.paper is not None and of_the_paper and bool(PAPER_DATA.fullmatch(row.fact("source")))


def _paper_cells(accuracy: float | None, f1: float | None) -> dict[str, Cell]:
    return {"paper_accuracy": Cell(accuracy), "paper_f1": Cell(f1)}


def _family_score(basis: Basis, family: pd.DataFrame, metric: str) -> Score:
    return family_score(family, f"test_{metric}", basis.error, replicated=basis.is_replicated)


def _measured(cells: Mapping[str, Cell], runs: pd.DataFrame) -> dict[str, Cell]:
    """The number of seeds or replicates with a score, and the parameters of the runs."""
    if runs.empty:
        return {}
    done, score = scored(runs), cells["accuracy"]
    found = {"seeds": Cell(float(score.n or 0), n=score.n, wanted=score.wanted)}
    return found | ({"parameters": Cell(float(done["parameters"].mean()))} if len(done) else {})


def _compression(row: RowRuns) -> Cell:
    """The teacher's parameters over the student's; empty where there is no teacher."""
    teacher, student = (runs["parameters"].mean() for runs in (row.measured_teachers, row.measured))
    return Cell() if pd.isna(teacher) or pd.isna(student) else Cell(float(teacher / student))


def _trials(row: RowRuns) -> Cell:
    """Trials that were sampled, and how many of them have a result."""
    # More than sampled have finished while another study extends the row.
    finished = [min(int(one.tuning["status"].isin(FINISHED).sum()), one.sampled) for one in row.replicates]
    return Cell(float(row.sampled), n=sum(finished), wanted=row.sampled)


def _cost(basis: Basis, runs: pd.DataFrame) -> Cell:
    seconds = spent(runs, basis.clock.column)
    return Cell() if seconds is None else Cell(seconds / basis.clock.seconds)


def _gap(basis: Basis, row: RowRuns) -> Cell:
    """(S_KD - S) / (T - S) on accuracy in per cent, or a dash with the reason."""
    control = basis.controls[row.spec.name]
    student = _mean(row.means("test_accuracy"))
    if pd.isna(student) or (control is None and _is_control(basis, row)):
        return Cell()
    teacher = _mean(row.teacher_means("test_accuracy"))
    baseline = _mean(control.means("test_accuracy")) if control else float("nan")
    reason = _why_no_gap(row, control, teacher, baseline)
    if control is not None and not reason:
        gap = _gap_with_interval(basis.runs, row, control)
        if gap is not None:
            return Cell(100 * gap.value, interval=(100 * gap.low, 100 * gap.high))
        reason = NOT_BETTER
    if reason not in basis.footnotes:
        basis.footnotes.append(reason)
    return Cell(text=DASH, footnote=basis.footnotes.index(reason) + 1)


def _is_control(basis: Basis, row: RowRuns) -> bool:
    return row is basis.control or any(row is other for other in basis.controls.values())


def _gap_with_interval(runs: Runs, row: RowRuns, control: RowRuns) -> Gap | None:
    """The gap; None where the row's teacher is not shown to be better than the control."""
    if row.is_replicated:
        scores = compared_scores(runs, {"row": row, "control": control}, "accuracy")
        scores["teacher"] = teacher_scores(runs, row, "accuracy", scores["row"].groups)
        pairs = (("row", "control"), ("teacher", "control"), ("row", "teacher"))
        if any(set(scores[a].replicates).isdisjoint(scores[b].replicates) for a, b in pairs):
            return None
        return gap_recovered(*(Contrast.of_pairs(paired(scores[a], scores[b])) for a, b in pairs))
    student, teacher, baseline = (
        percents(measured, "test_accuracy") for measured in (row.measured, row.measured_teachers, control.measured)
    )
    pairs_of_samples = ((student, baseline), (teacher, baseline), (student, teacher))
    return gap_recovered(*(Contrast.of_samples(a, b) for a, b in pairs_of_samples))


def _mean(values: Sequence[float]) -> float:
    """The mean; NaN of none."""
    return sum(values) / len(values) if values else float("nan")


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
