"""Records of a row: its identity, its winner, and the versions of the code that it ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, RootModel

from mmkd.records.schema import FileName, Record, read_record
from mmkd.rundir import RowDir


class SearchRange(Record):
    """Search range of a hyperparameter, uniform on a logarithmic scale if `log`."""

    low: float
    high: float
    log: bool = False


class RowIdentity(Record):
    """Everything that decides a row's numbers; `training`, `student` and `teacher` are as in a configuration."""

    model_config = ConfigDict(frozen=True, extra="allow")

    algorithm: int
    data: str
    primary: str
    pairing: str
    method: str
    level: str | None
    settings: Mapping[str, Any]
    space: Mapping[str, SearchRange]
    fixed: Mapping[str, float]
    sampler: str
    training: Mapping[str, Any]
    student: Mapping[str, Any]
    teacher: Mapping[str, Any] | None
    selection: str
    pruner: str = "none"
    split: str = ""
    replicate: int = 0
    teacher_tuning: Mapping[str, Any] | None = None
    finalists: Mapping[str, int] | None = None


class RowData(Record):
    """Data set of a row; `path` is where it was when the row began.

    `steps` is modality -> length of its sequences; empty in records of earlier versions.
    """

    path: str
    source: str
    fingerprint: str
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    steps: Mapping[str, int] = {}


class RowRecord(Record):
    """`row.json`: identity of a row, its hash, and its data."""

    digest: str
    identity: RowIdentity
    data: RowData


class WinnerRecord(Record):
    """`winner.json`: the winning tuning trial, and the directory of the final run that counts for each seed.

    `value` is its validation metric, the mean over its runs if it was one of several finalists.
    `trials` count against the budget; all that took part have numbers below `numbers`, which is larger if failed
    trials were tried again under new numbers. `journal` is the size of the row's journal in bytes then: as long as it
    is the same, nothing was sampled or reported since.
    """

    trial: int
    value: float
    params: Mapping[str, float]
    trials: int
    numbers: int
    selection: str
    seeds: tuple[int, ...]
    confirm: Mapping[int, str]
    journal: int = 0


class TeacherChoice(Record):
    """`choice-<digest>.json`, beside the first candidate of a tuned teacher: the chosen directory below `teachers`.

    `values` are the validation metrics `selection` of the candidates that completed, by directory.
    """

    teacher: FileName
    selection: str
    values: Mapping[str, float]


class CodeVersion(Record):
    """A version of the code that a row's trials ran: source hash, commit, patch hash, and time of first use."""

    code: str
    commit: str = ""
    diff: str = ""
    since: float


class CodeRecord(RootModel[tuple[CodeVersion, ...]]):
    """`code.json`: versions of the code that a row's trials ran, in order."""


class SnapshotRecord(Record):
    """`snapshot.json`, beside the packages of a copy of the code: its origin (`mmkd.provenance`) and source hash."""

    git: Mapping[str, str]
    code: str
    taken: float


def code_versions(row: RowDir) -> tuple[CodeVersion, ...]:
    """Versions of the code that a row's trials ran; none where nothing was recorded.

    Raises:
        UserError: the record is invalid. A launch would overwrite the versions that it named.
    """
    if not row.code.exists():
        return ()
    return read_record(row.code, CodeRecord, "repair it, or move it away to record code from now on").root
