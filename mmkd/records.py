"""Read and write the records of studies and rows: one schema per file, shared by controller, monitor and analysis.

Unknown keys are ignored, so that a newer mmkd's files stay readable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from mmkd.config import Scheme, digest, explain
from mmkd.errors import UserError, choose
from mmkd.files import write_json
from mmkd.rundir import Root, RowDir, WorkerDir
from mmkd.terminal import is_plain

LONGEST_LINE = 200


def _check_line(text: str) -> str:
    if not is_plain(text) or len(text) > LONGEST_LINE:
        raise ValueError(f"{text[:100]!r}: give one line of at most {LONGEST_LINE} printable characters")
    return text


Line = Annotated[str, AfterValidator(_check_line)]
"""Text for people and tables."""
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""A name inside one directory: `--clean` removes files there, and figures' files are named after rows."""
Percent = Annotated[float, Field(ge=0, le=100)]


class Record(BaseModel):
    """Base of all records: immutable."""

    model_config = ConfigDict(frozen=True)


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


class SubmissionRecord(Record):
    """`attempts/<k>.json`: the controller's record of an attempt, with the scheduler's accounting as it came.

    Times are in seconds since 1970 by the controller's clock; `elapsed` (s) is the scheduler's. None: not known.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    backend: str = ""
    name: str = ""
    job: str = ""
    worker: str = ""
    """The assignment's name, where `name` and `job` are those of a worker that runs several trials."""
    gpus: float | None = None
    """GPUs of the job; of a worker, the trial's share."""
    submitted: float | None = None
    node: str = ""
    end: str = ""
    message: str = ""
    epochs: int = 0
    ended: float | None = None
    elapsed: float | None = None
    gpu_seconds: float | None = None


class RunRecord(Record):
    """`attempts/<k>.job.json`: the job's own record of an attempt, with what `mmkd.provenance` says of its process.

    Times are in seconds since 1970 by the clock of the job's node. None: not known.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    started: float | None = None
    host: str = ""
    node: str = ""
    cuda_visible_devices: str = ""
    git: Mapping[str, str] = {}
    end: str = ""
    message: str = ""
    ended: float | None = None
    seconds: float | None = None
    peak_mb: float | None = None
    peak_gpu_mb: float | None = None


class AttemptRecord(Record):
    """An attempt in a line of `finished.jsonl`: its number, and both of its records."""

    number: int
    submitted: SubmissionRecord
    ran: RunRecord


class TrialFacts(Record):
    """Facts that a trial's configuration decides, as tables show them; `teacher` is its directory in the root.

    `split` is the digest of a drawn split. `teacher_family` is what teachers share that differ only in seed and split.
    None: the trial has no such value.
    """

    seed: int
    replicate: int
    split: str | None
    learning_rate: float
    fingerprint: str
    alpha: float | None = None
    beta: float | None = None
    temperature: float | None = None
    teacher: str | None = None
    teacher_family: str | None = None
    branch: str | None = None


class FinishedTrial(Record):
    """A line of `finished.jsonl`: a finished trial in brief, without curves and predictions.

    `directory` are the last two parts of its path. `result` are size, mtime_ns and inode of its result file when it was
    read: the line holds as long as they are the same. `attempts_changed` is the mtime_ns of the directory of the
    attempts' records. The other values are those of `mmkd.result_file.Result`.
    """

    format: int
    algorithm: int
    directory: Annotated[str, Field(pattern=r"^(trials|confirm|teachers)/[^/]+$")]
    result: tuple[int, int, int]
    attempts_changed: int
    status: Literal["complete", "pruned", "diverged"]
    reason: str
    best_epoch: int
    epochs: int
    seconds: float
    parameters: int
    device: str
    weights_sha256: str
    metrics: Mapping[str, Mapping[str, float]]
    facts: TrialFacts
    attempts: tuple[AttemptRecord, ...]


class AssignmentRecord(Record):
    """`inbox/<name>.json` of a worker: the arguments of `mmkd.trial`, its log, and the variables of its process.

    `slots`: those that it takes of the worker's, above 1 after a trial ran out of memory.
    """

    arguments: tuple[str, ...]
    log: str
    environment: Mapping[str, str]
    slots: int = 1


class ProcessRecord(Record):
    """`processes/<name>.json` of a worker: process id (0: not started), creation time, and how it ended.

    Args:
        code: the exit code (-N: killed by signal N); None while it runs.
        failure: `out_of_memory` if the kernel killed it for lack of memory.
    """

    pid: int
    started: float
    code: int | None = None
    failure: str = ""


class WorkerRecord(Record):
    """`worker.json` of a worker that is a job on Slurm, rewritten every few seconds.

    Args:
        study: the study whose controller assigns trials to it.
        slots: trials at once.
        gpus: GPUs of the job.
        node: where it runs.
        beat: counts up for as long as it works: proof of life without a clock.
        seconds: since the start of its process, by its own clock.
        taken: slots in which a trial runs now.
        busy: slots times seconds in which trials ran.
    """

    study: str
    slots: int
    gpus: int
    node: str
    beat: int
    seconds: float
    taken: int
    busy: float

    @property
    def idle_gpu_seconds(self) -> float:
        """GPU-seconds in which slots were free."""
        return self.gpus * max(self.seconds - self.busy / self.slots, 0.0)


class PaperFigures(Record):
    """Figures that the paper prints for a row on MOSEI, and for its section's teacher, in per cent."""

    accuracy: Percent
    f1: Percent
    teacher_accuracy: Percent | None = None
    teacher_f1: Percent | None = None


class StudyRow(Record):
    """One replicate of a row in a study; `trials` and `seeds` are the study's budget.

    `control` is the row that it is compared with; None: the study's control.
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
        """The row that each row is compared with, by its name.

        None for the study's control, for rows that others name as theirs unless they name one too, and where the study
        has no control.
        """
        named = {row.control for row in self.rows} | {self.control}
        return {row.name: row.control or (None if row.name in named else self.control) for row in self.rows}


class SplitRecord(Record):
    """`splits/<digest>.json`: a drawn split.

    `parts` is part (train, valid, test) -> group -> ids of its samples, sorted. A group is in one part only.
    """

    scheme: Scheme
    parts: Mapping[str, Mapping[str, tuple[str, ...]]]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the record: the same for the same samples and groups, however they were drawn."""
        return digest(self.model_dump(mode="json"))


R = TypeVar("R", bound=BaseModel)


def as_written(record: BaseModel) -> Any:
    """JSON values of a record, without the keys that it was made without."""
    return record.model_dump(exclude_unset=True)


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record, see `mmkd.files.write_atomically`."""
    write_json(path, as_written(record))


def read_record(path: Path, schema: type[R], remedy: str = "launch the study again to rewrite it") -> R:
    """Read a record.

    Raises:
        UserError: it cannot be read or is invalid; names file, key, value and remedy.
    """
    try:
        return schema.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise UserError(f"{explain(error, path)}; {remedy}") from None


def assign(worker: WorkerDir, name: str, assignment: AssignmentRecord) -> None:
    """Put an assignment into a worker's inbox, by rename.

    Raises:
        FileNotFoundError: the worker's directory is gone.
    """
    draft = worker.path / f"{name}.json"
    write_record(draft, assignment)
    os.rename(draft, worker.assignment(name))


def find_record(path: Path, schema: type[R]) -> R | None:
    """Read a record; None if it is absent or invalid, where a relaunch rewrites it."""
    try:
        return schema.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def store_split(root: Root, split: SplitRecord) -> Path:
    """Write the record of a drawn split below `root`, unless it is there; return its path.

    Raises:
        UserError: there is another content under its name.
    """
    path = root.split(split.digest)
    if path.exists():
        if read_record(path, SplitRecord, "remove it and launch again to rewrite it") != split:
            raise UserError(f"{path}: not the split that it is named after; remove it and launch again to rewrite it")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, split)
    return path


def code_versions(row: RowDir) -> tuple[CodeVersion, ...]:
    """Versions of the code that a row's trials ran; none where nothing was recorded.

    Raises:
        UserError: the record is invalid. A launch would overwrite the versions that it named.
    """
    if not row.code.exists():
        return ()
    return read_record(row.code, CodeRecord, "repair it, or move it away to record code from now on").root


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


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings, with keys such as `outer.inner`; an empty mapping is a leaf."""
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def differences(values: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Compare nested mappings leaf by leaf: key -> its value in each (None if absent), where they are not all equal."""
    flat = [dict(leaves(value)) for value in values]
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for one in flat for key in one):
        each = [one.get(key) for one in flat]
        if not all(key in one for one in flat) or any(value != each[0] for value in each):
            found[key] = each
    return found
