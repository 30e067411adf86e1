"""The rows and notes of a table about its reference models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns
from analysis.stats.error_bars import Error
from analysis.stats.linear_model import ITERATIONS, C
from analysis.stats.references import Reference, references, student_modalities, teacher_modalities
from analysis.stats.replicates import METRICS
from analysis.stats.scores import mean_of
from analysis.tables.model import Cell, Section, TableRow

TITLE = "Reference models"


def reference_section(
    runs: Runs, rows: Sequence[RowRuns], error: Error, filled: Callable[[Mapping[str, Cell]], Mapping[str, Cell]]
) -> Iterator[Section]:
    """The most frequent class, and the linear models of the students' and of the teachers' modalities, if known.

    `filled` adds the empty cells of other columns.
    """
    lines: list[TableRow] = []
    for modalities, known in _by_modalities(runs, rows).items():
        if not lines:
            lines.append(_row("majority", "Most frequent class", [one.majority for one in known], error))
        name = " + ".join(modalities)
        lines.append(_row(f"linear {name}", f"Linear model, {name}", [one.test for one in known], error))
    if lines:
        yield Section(TITLE, tuple(replace(line, cells=filled(line.cells)) for line in lines))


def reference_notes(runs: Runs, rows: Sequence[RowRuns], missing: Sequence[str]) -> Iterator[str]:
    """Notes on the linear models, and the reason if there are none for some data."""
    for problem in missing:
        yield f"no reference models: {problem}"
    known = _by_modalities(runs, rows)
    if known:
        chosen = "; ".join(
            f"{' + '.join(modalities)}: {' or '.join(sorted({one.features for one in found}))}"
            for modalities, found in known.items()
        )
        yield (
            f"linear model: scikit-learn's logistic regression (C = {C:g}, at most {ITERATIONS} iterations, not tuned) "
            "on sequences or on summary statistics (mean, SD, minimum, maximum of each feature), the better by "
            f"accuracy on validation ({chosen}); n: splits"
        )


def _by_modalities(runs: Runs, rows: Sequence[RowRuns]) -> dict[tuple[str, ...], list[Reference]]:
    students = (student_modalities(row) for row in rows)
    teachers = (teacher_modalities(row) for row in rows if len(row.teachers))
    found = {m: references(runs, rows, m) for m in dict.fromkeys((*students, *teachers))}
    return {modalities: known for modalities, known in found.items() if known}


def _row(name: str, label: str, scores: Sequence[Mapping[str, float]], error: Error) -> TableRow:
    cells = {m: Cell.of(mean_of(100 * np.array([one[m] for one in scores]), len(scores), error)) for m in METRICS}
    cells["seeds"] = Cell(float(len(scores)), n=len(scores), wanted=len(scores))
    return TableRow(name, label, "reference", "", cells)
