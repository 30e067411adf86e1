"""Record of a launched study: its rows, their order, and the control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    `control` is the row that it is compared with; None: the study's control. `teachers` are those known so far. If they
    are tuned, the `candidates` are among them.
    """

    name: FileName
    label: str
    group: str | None
    replicate: int = 0
    control: str | None = None
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
    def _controls_are_rows(self) -> StudyRecord:
        names = {row.name for row in self.rows}
        for control in {self.control, *(row.control for row in self.rows)} - {None}:
            if control not in names:
                raise ValueError(f"control = {control!r} is no row")
        return self

    @property
    def controls(self) -> dict[str, str | None]:
        """The row that each row is compared with, by its name; see `compared_with`."""
        return compared_with({row.name: row.control for row in self.rows}, self.control)


def compared_with(named: Mapping[str, str | None], control: str | None) -> dict[str, str | None]:
    """The row that each row is compared with.

    None for the study's control, for rows that others name as theirs unless they name one too, and where the study has
    no control.

    Args:
        named: by each row's name the control that it names, None where it names none.
        control: the study's.
    """
    controls = {*named.values(), control}
    return {name: own or (None if name in controls else control) for name, own in named.items()}


def study_names(root: Path) -> list[str]:
    """List the studies under a root."""
    return sorted(path.stem for path in root.glob("studies/*.json") if not path.name.startswith("."))


def read_study(root: Path, name: str) -> StudyRecord:
    """Read a study's record.

    Raises:
        UserError: no such study (names the nearest), or its record is invalid.
    """
    return read_record(Root(root).study(choose("study", name, study_names(root))), StudyRecord)


def select_rows(wanted: Sequence[str] | None, controls: Mapping[str, str | None], control: str | None) -> list[str]:
    """Return the names of the rows that --rows asks for, and of their controls and the study's, in the study's order.

    Args:
        wanted: the names that were given; None: all.
        controls: the row that each row of the study is compared with, by its name, in the study's order.
        control: the study's.

    Raises:
        UserError: the study has no such row.
    """
    if wanted is None:
        return list(controls)
    asked = [choose("row (--rows)", name, controls) for name in wanted]
    chosen = {control, *asked, *(controls[name] for name in asked)}
    return [name for name in controls if name in chosen]
