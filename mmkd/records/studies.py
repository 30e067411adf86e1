"""Record of a launched study: its rows, their order, and the control."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from mmkd.errors import choose
from mmkd.records.schema import FileName, Line, Percent, Record, read_record
from mmkd.rundir import Root


class PaperFigures(Record):
    """Figures that the paper prints for a row on MOSEI, and for its section's teacher, in per cent."""

    accuracy: Percent
    f1: Percent
    teacher_accuracy: Percent | None = None
    teacher_f1: Percent | None = None


class StudyRow(Record):
    """One replicate of a row in a study; `trials` and `seeds` are the study's budget.

    `teachers` are those known so far. If they are tuned, the `candidates` are among them.
    """

    name: FileName
    label: str
    group: str | None
    replicate: int = 0
    paper: PaperFigures | None = None
    directory: FileName
    trials: int
    seeds: tuple[int, ...]
    teachers: tuple[FileName, ...]
    candidates: tuple[FileName, ...] = ()


class StudyRecord(Record):
    """`studies/<name>.json`: rows in order, the control's name, and the budget that the monitor shows.

    A row with several replicates has a line for each, under one name: all rows' first replicates, then the second.
    """

    name: str
    title: Line
    control: str | None
    max_gpu_hours: float | None = None
    rows: Annotated[tuple[StudyRow, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _control_is_a_row(self) -> StudyRecord:
        if self.control is not None and self.control not in [row.name for row in self.rows]:
            raise ValueError(f"control = {self.control!r} is no row")
        return self


def study_names(root: Path) -> list[str]:
    """List the studies under a root."""
    return sorted(path.stem for path in root.glob("studies/*.json") if not path.name.startswith("."))


def read_study(root: Path, name: str) -> StudyRecord:
    """Read a study's record.

    Raises:
        UserError: no such study (names the nearest), or its record is invalid.
    """
    return read_record(Root(root).study(choose("study", name, study_names(root))), StudyRecord)


def select_rows(wanted: Sequence[str] | None, names: Sequence[str], control: str | None) -> list[str]:
    """Return the names of the rows that --rows asks for and of the control, in the study's order; all for None.

    Raises:
        UserError: the study has no such row.
    """
    names = list(dict.fromkeys(names))  # a row has a name, its replicates share it
    if wanted is None:
        return names
    chosen = {control, *(choose("row (--rows)", name, names) for name in wanted)}
    return [name for name in names if name in chosen]
