"""What the controller writes about rows and studies, read and checked. Keys that analysis does not need are ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mmkd.config import explain
from mmkd.errors import UserError, choose
from mmkd.rundir import Root


class Record(BaseModel):
    """Base of all records: immutable."""

    model_config = ConfigDict(frozen=True)


class RowIdentity(Record):
    """What a row is: the keys that tables need, and all others as they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    algorithm: int
    primary: str
    pairing: str
    method: str
    level: str | None
    selection: str
    pruner: str = "none"


class RowData(Record):
    """The data that a row is measured on."""

    source: str
    fingerprint: str
    classes: tuple[str, ...] = ()


class RowRecord(Record):
    """A row's `row.json`."""

    digest: str
    identity: RowIdentity
    data: RowData


class Winner(Record):
    """A row's `winner.json`: `confirm` names the directory that counts for each seed.

    `trials` count against the budget; all that took part have numbers below `numbers`, which is larger where a failed
    trial was tried again under a new one. None: written before failed trials could be, so that it is `trials`.
    """

    trial: int
    value: float
    trials: int
    numbers: int | None = None
    confirm: dict[int, str]


class PaperFigures(Record):
    """What the paper prints for a row on MOSEI, and for the teacher of its section, in per cent."""

    accuracy: float
    f1: float
    teacher_accuracy: float | None = None
    teacher_f1: float | None = None


FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""A name that leads to no other folder: figures' files are called after rows."""


class StudyRow(Record):
    """A row as a study has it: `trials` and `seeds` are what the study asks for."""

    name: FileName
    label: str
    group: str | None = None
    paper: PaperFigures | None = None
    directory: FileName
    trials: int
    seeds: tuple[int, ...]


class Study(Record):
    """A study's file under the root: its rows in order; `control` is the name of one of them."""

    name: str
    title: str
    control: str | None
    rows: tuple[StudyRow, ...]

    @model_validator(mode="after")
    def _control_is_a_row(self) -> Study:
        if self.control is not None and self.control not in [row.name for row in self.rows]:
            raise ValueError(f"control = {self.control!r} is no row")
        return self


R = TypeVar("R", bound=Record)


def read_record(path: Path, model: type[R]) -> R:
    """The record in `path`.

    Raises:
        UserError: it cannot be read, or is not what it should be.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise UserError(explain(error, path)) from None


def study_names(root: Path) -> list[str]:
    """The studies under a root."""
    return sorted(path.stem for path in root.glob("studies/*.json"))


def read_study(root: Path, name: str) -> Study:
    """The study called `name`.

    Raises:
        UserError: there is none (with the nearest names), or its file is broken.
    """
    return read_record(Root(root).study(choose("study", name, study_names(root))), Study)
