"""The cell of a table with the gap recovered, (S_KD - S) / (T - S), or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns
from analysis.stats.gap import Contrast, Gap, gap_recovered
from analysis.stats.paired import paired
from analysis.stats.replicates import compared_scores, teacher_scores
from analysis.stats.scores import percents
from analysis.tables.model import Cell

DASH = "\N{EN DASH}"
NOT_BETTER = "no gap: the teacher is not shown to be better than the control (95 % interval)"


def gap_cell(runs: Runs, row: RowRuns, control: RowRuns | None, footnotes: list[str]) -> Cell:
    """The gap on accuracy in per cent, with its 95 % interval; or a dash, whose reason is added to `footnotes`."""
    student = _mean(row.means("test_accuracy"))
    if pd.isna(student):
        return Cell()
    teacher = _mean(row.teacher_means("test_accuracy"))
    baseline = _mean(control.means("test_accuracy")) if control else float("nan")
    reason = _why_no_gap(row, control, teacher, baseline)
    if control is not None and not reason:
        gap = _gap_with_interval(runs, row, control)
        if gap is not None:
            return Cell(100 * gap.value, interval=(100 * gap.low, 100 * gap.high))
        reason = NOT_BETTER
    if reason not in footnotes:
        footnotes.append(reason)
    return Cell(text=DASH, footnote=footnotes.index(reason) + 1)


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
