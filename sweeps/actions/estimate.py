"""Estimate the remaining runs of a study and their time, from similar runs or a probe of one epoch."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmkd.attempts import read_attempts
from mmkd.config import Run, StudentConfig, Training, digest
from mmkd.errors import UserError
from mmkd.files import read_json
from mmkd.finished import read_finished
from mmkd.formatting import count, duration, remaining
from mmkd.metrics_log import read_metrics
from mmkd.rundir import Root, RowDir, TrialDir
from slurm.backend import Backend
from sweeps.actions.status import read_journal
from sweeps.controller.job_names import job_tag
from sweeps.controller.last_words import last_line
from sweeps.controller.make_job import make_job
from sweeps.controller.tasks import Task, teacher_task, write_config
from sweeps.nearest_row import stored_identities
from sweeps.rows import TUNING_SEED, Row, expected_teachers, replicates_by_name, tuning_teachers

ALIKE = ("data", "primary", "pairing", "method", "level", "settings", "student")
"""Keys of a row's identity that decide how long an epoch takes, with the teacher's network and the training recipe."""


@dataclass(frozen=True)
class Estimate:
    """The seconds that a run takes, including its start, and in words how that is known."""

    seconds: float
    how: str


Estimates = dict[str | TrialDir, Estimate | None]
"""The estimate for a run of each row, by name, and for each missing teacher."""


@dataclass(frozen=True)
class Left:
    """The remaining trials and final runs of a row, and its missing teachers: tuning's, and other seeds'."""

    row: Row
    tuning: int
    final: int
    tuning_teacher: tuple[TrialDir, ...]
    other_teachers: tuple[TrialDir, ...]

    @property
    def runs(self) -> int:
        """Trials and final runs."""
        return self.tuning + self.final

    @property
    def teachers(self) -> tuple[TrialDir, ...]:
        """All missing teachers."""
        return self.tuning_teacher + self.other_teachers


def left_of(row: Row, *, retry_failed: bool = False) -> Left:
    """Count what a row still needs, by its files. While trials are left, so are all final runs: the winner may change.

    `retry_failed`: trials that failed (no retries left) count too.
    """
    journal = read_journal(row.directory, read_finished(row.directory).trials)
    again = [n for n in journal.failed if retry_failed and not row.directory.trial(n).result.exists()]
    tuning = max(row.budget - journal.sampled, 0) + len(journal.open) + len(again)
    counting = [run for run in row.directory.final_runs() if run.result.exists() and not run.superseded.exists()]
    final = row.seeds if tuning else max(row.seeds - len(counting), 0)
    teachers = expected_teachers(row)
    first = tuning_teachers(row) if tuning else []
    missing = [teacher for teacher in teachers if not teacher.result.exists()]
    others = tuple(teacher for teacher in missing if teacher not in first)
    return Left(row, tuning, final, tuple(t for t in missing if t in first), others if final else ())


def run_seconds(directory: TrialDir, backend: Backend) -> float | None:
    """Sum the attempts of a finished run; None if it is not finished or ran on another backend.

    The start of Python counts where the backend starts jobs at once; the wait in a queue does not.
    """
    attempts = read_attempts(directory)
    elsewhere = any(attempt.submitted.backend != backend.name for attempt in attempts)
    if not directory.result.exists() or not attempts or elsewhere:
        return None
    total = 0.0
    for attempt in attempts:
        began = attempt.submitted.submitted if backend.prompt else attempt.ran.started
        own = attempt.ran.ended - began if began and attempt.ran.ended else 0.0
        total += attempt.submitted.elapsed or own
    return total or None


def from_finished(
    replicates: Sequence[Row], backend: Backend, stored: Mapping[RowDir, Mapping[str, Any]]
) -> Estimate | None:
    """Estimate a run of a row from its replicates' own finished runs, or from those of the first row of its kind.

    `stored` are the identities of the rows below the root.
    """
    row, own = replicates[0], [one.directory for one in replicates]
    alike = [directory for directory in stored if _kind_of_row(stored[directory]) == _kind_of_row(row.identity)]
    ours = [directory for directory in own if directory in alike]
    for directories in filter(None, (ours, *([other] for other in alike if other not in own))):
        runs = (run for directory in directories for run in (*directory.trials(), *directory.final_runs()))
        seconds = _measured(runs, backend)
        if seconds:
            epochs = stored[directories[0]]["training"]["epochs"]
            whose = "its" if directories is ours else f"{directories[0].path.name}'s"
            scaled = "" if epochs == row.student.training.epochs else f", which have {count(epochs, 'epoch')}"
            mean = math.fsum(seconds) / len(seconds) * row.student.training.epochs / epochs
            return Estimate(mean, f"the mean of {whose} {count(len(seconds), 'finished run')}{scaled}")
    return None


def _kind_of_row(identity: Mapping[str, Any]) -> list[Any]:
    teacher = identity.get("teacher")
    return [*map(identity.get, ALIKE), teacher and teacher["network"], _recipe(identity["training"])]


def teacher_from_finished(config: Run, root: Root, backend: Backend) -> Estimate | None:
    """Estimate a teacher from those under the root with its network and training, whatever their seed and epochs."""
    ours = _kind_of_teacher(config.model_dump(mode="json"))
    scaled = []
    for teacher in root.teachers():
        theirs = read_json(teacher.config)
        if theirs is not None and _kind_of_teacher(theirs) == ours:
            factor = config.training.epochs / theirs["training"]["epochs"]
            scaled += [seconds * factor for seconds in _measured([teacher], backend)]
    return Estimate(math.fsum(scaled) / len(scaled), f"the mean of {len(scaled)} under this root") if scaled else None


def _kind_of_teacher(config: Mapping[str, Any]) -> tuple[Any, ...]:
    if tuned_from := config.get("tuned_from"):
        return (tuned_from,)
    return (config["data"]["fingerprint"], config["network"], config.get("branch"), _recipe(config["training"]))


def _recipe(training: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in training.items() if key not in ("epochs", "learning_rate")}


def _measured(directories: Iterable[TrialDir], backend: Backend) -> list[float]:
    return [seconds for directory in directories if (seconds := run_seconds(directory, backend)) is not None]


def estimates_of(left: Sequence[Left], root: Root, backend: Backend) -> Estimates:
    """Estimate a run of each row and each missing teacher from finished runs."""
    stored, by_name = stored_identities(root), replicates_by_name(row.row for row in left)
    estimates: Estimates = {name: from_finished(rows, backend, stored) for name, rows in by_name.items()}
    known: dict[str, Estimate | None] = {}
    for row in left:
        config = row.row.student.teacher
        if config is not None and row.teachers:
            kind = digest(_kind_of_teacher(config.model_dump(mode="json")))
            if kind not in known:
                known[kind] = teacher_from_finished(config, root, backend)
            estimates |= dict.fromkeys(row.teachers, known[kind])
    return estimates


def forecast(left: Sequence[Left], seconds: Mapping[str | TrialDir, float], slots: int) -> tuple[float, float]:
    """Return the seconds until all rows are done, and the slot-seconds of their runs.

    Args:
        left: the rows; the one that takes longest by itself bounds the first number.
        seconds: of a run, by row name, and of each missing teacher.
        slots: runs at once.
    """
    work = sum(seconds[teacher] for teacher in {teacher for row in left for teacher in row.teachers})
    chains = []
    for row in left:
        run = seconds[row.row.name]
        work += run * row.runs
        tuned = sum(seconds[teacher] for teacher in row.tuning_teacher) + run * math.ceil(row.tuning / slots)
        taught = max((seconds[teacher] for teacher in row.other_teachers), default=0.0)
        chains.append(max(tuned, taught) + run * math.ceil(row.final / slots))
    return remaining(work, slots, chains), work


def show_estimate(rows: Sequence[Left], estimates: Estimates, slots: int, gpus: float) -> None:
    """Print the remaining runs and their cost, or what is unknown and how to find out. Each run has so many `gpus`."""
    left = [row for row in rows if row.runs]
    if not left:
        print("left      nothing")
        return
    for name in dict.fromkeys(row.row.name for row in left):
        ours = [row for row in left if row.row.name == name]
        sums = (sum(row.tuning for row in ours), "trial"), (sum(row.final for row in ours), "final run")
        parts = " and ".join(count(n, what) for n, what in sums if n)
        each = f" in {count(len(ours), 'replicate')}" if len(ours) > 1 else ""
        print(f"left      {name}: {parts}{each}, {_describe(estimates[name])}")
    teachers = dict.fromkeys(teacher for row in left for teacher in row.teachers)
    for words, number in Counter(_describe(estimates[teacher]) for teacher in teachers).items():
        print(f"left      {count(number, 'teacher')}, {words}")
    known = {key: estimate.seconds for key, estimate in estimates.items() if estimate is not None}
    if any(key not in known for key in (*teachers, *(row.row.name for row in left))):
        print("estimate  not possible yet; --dry-run --probe runs one epoch of each here")
        return
    seconds, work = forecast(left, known, slots)
    print(
        f"estimate  about {duration(seconds)} with {slots} at a time, if none waits in a queue; "
        f"{gpus * work / 3600:.2f} GPU-hours"
    )


def _describe(estimate: Estimate | None) -> str:
    if estimate is None:
        return "of unknown length: nothing like it has run under this root where it would run now"
    return f"{duration(estimate.seconds)} each ({estimate.how})"


def probe(left: Sequence[Left], estimates: Estimates, environment: Mapping[str, str]) -> Estimates:
    """Implement --probe: run one epoch of each row and teacher without an estimate. Return all estimates.

    Raises:
        UserError: a run failed; quotes the last line of its log.
    """
    filled = dict(estimates)
    with tempfile.TemporaryDirectory(prefix="mmkd-probe-") as temporary:
        root = Root(Path(temporary))
        measured: dict[str, Estimate] = {}
        for row in left:
            missing = [teacher for teacher in row.teachers if filled[teacher] is None]
            unknown = filled[row.row.name] is None and row.runs
            if not missing and not unknown:
                continue
            student = row.row.student
            short = replace(row.row, root=root, student=_of_one_epoch(student), search=None)
            if student.teacher is not None:
                kind = digest(_kind_of_teacher(student.teacher.model_dump(mode="json")))
                if kind not in measured:
                    task = teacher_task(short, TUNING_SEED)
                    measured[kind] = _run(task, student.teacher.training, root, environment)
                filled |= dict.fromkeys(missing, measured[kind])
            if unknown:
                config = short.config(short.default(), TUNING_SEED)
                task = Task(short.name, short.name, "tuning", short.directory.trial(0), config)
                filled[row.row.name] = _run(task, student.training, root, environment)
    return filled


def _of_one_epoch(student: StudentConfig) -> StudentConfig:
    """Return a configuration with one epoch of training for the student and its teacher."""
    changes: dict[str, Any] = {"training": student.training.model_copy(update={"epochs": 1})}
    if student.teacher is not None:
        training = student.teacher.training.model_copy(update={"epochs": 1})
        changes["teacher"] = student.teacher.model_copy(update={"training": training})
    return student.model_copy(update=changes)


def _run(task: Task, training: Training, root: Root, environment: Mapping[str, str]) -> Estimate:
    """Run a task of one epoch and extrapolate to the epochs of `training`."""
    print(f"probing   {task.label}", flush=True)
    write_config(task)
    job = make_job(task, 0, job_tag(root), environment)
    job.log.parent.mkdir(parents=True)
    began = time.monotonic()
    with job.log.open("wb") as log:
        variables = {**os.environ, **job.environment}
        code = subprocess.run(job.command, stdout=log, stderr=subprocess.STDOUT, env=variables).returncode
    taken = time.monotonic() - began
    lines = read_metrics(task.directory)
    if code or not lines:
        print(job.log.read_text(errors="replace"), file=sys.stderr, end="")
        raise UserError(f"--probe: {task.label} ended with code {code}: {last_line(task.directory, 0)}")
    epoch = float(lines[-1]["seconds"])
    how = f"one epoch run here: {epoch:.1f} s, and {taken - epoch:.1f} s to start and end; {training.epochs} of them"
    return Estimate(taken - epoch + training.epochs * epoch, how)
