"""Records of a trial: its attempts, and its line in `finished.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from mmkd.records.schema import Record


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
    launch: str = ""
    """A random word of the launch whose controller submitted it."""
    submitted: float | None = None
    node: str = ""
    end: str = ""
    message: str = ""
    epochs: int = 0
    ended: float | None = None
    seconds: float | None = None
    """Seconds that it ran, as far as the controller knows; no difference of two machines' clocks."""
    elapsed: float | None = None
    gpu_seconds: float | None = None


class RunRecord(Record):
    """`attempts/<k>.job.json`: the job's own record of an attempt, with what `mmkd.provenance` says of its process.

    Times are in seconds since 1970 by the clock of the job's node, which may differ from others. `seconds` is measured
    by a clock that is never set. None: not known.
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

    `split` is the digest of a drawn split. `teacher_family` is what teachers share that differ only in seed and split,
    or that were tuned from the same recipe.
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
