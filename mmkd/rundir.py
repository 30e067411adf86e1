"""Every path under a root, a row and a trial."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from mmkd.errors import UserError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


def check_name(what: str, name: str) -> str:
    """Return `name` if it may become a file's or a job's name.

    Raises:
        UserError: for anything but 1 to 80 letters, digits, `_`, `.` and `-`, the first a letter or digit.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"{what} {name[:100]!r}: use 1 to 80 letters, digits, '_', '.', '-', a letter or digit first")
    return name


class _Below:
    """A path of a fixed name below the directory of its owner."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: TrialDir | WorkerDir | RowDir | Root, kind: type | None = None) -> Path:
        return owner.path / self.name


@dataclass(frozen=True)
class TrialDir:
    """Directory of one trial: a tuning trial, a final run or a teacher."""

    path: Path

    config = _Below("config.json")
    """The resolved configuration, written before the first submission."""
    attempt = _Below("attempt")
    """The number of the attempt that may write; a job that finds another number there ends."""
    attempts = _Below("attempts")
    """Directory of the attempts' records."""

    def controller_record(self, attempt: int) -> Path:
        """The controller's record of an attempt: backend, job id, when, how it ended."""
        return self.attempts / f"{attempt}.json"

    def job_record(self, attempt: int) -> Path:
        """The job's own record of an attempt: host, process, versions, commit, how it ended."""
        return self.attempts / f"{attempt}.job.json"

    def log(self, attempt: int) -> Path:
        """Standard output and error of an attempt."""
        return self.path / "log" / f"{attempt}.txt"

    lock = _Below("job.lock")
    """Held by the process that runs the trial."""
    claim = _Below("claim.lock")
    """Held by the controller that trains a teacher, if several controllers need it."""
    metrics = _Below("metrics.jsonl")
    """One JSON line per epoch."""
    checkpoint = _Below("checkpoint.pt")
    """The state to resume from; gone once the trial is finished."""
    weights = _Below("weights.pt")
    """The weights of the lowest validation loss, written just before the result."""
    result = _Below("result.h5")
    """The result; a trial is finished if it exists."""
    stop = _Below("stop")
    """Written by the controller, with its reason: end at the next epoch."""

    def choice(self, digest: str) -> Path:
        """Beside the first candidate of a tuned teacher: the record of the chosen one."""
        return self.path / f"choice-{digest[:8]}.json"

    superseded = _Below("superseded")
    """Marks a final run whose row has another winner now; holds the reason."""

    @property
    def root(self) -> Root:
        """The root of this trial, which is `root/teachers/X` or `root/rows/ROW/trials|confirm/X`."""
        up = 1 if self.path.parent.name == "teachers" else 3
        return Root(self.path.absolute().parents[up])

    @property
    def name(self) -> str:
        """The path below the root: `teachers/4f1e`, `rows/ROW/trials/3`."""
        return self.path.absolute().relative_to(self.root.path).as_posix()


@dataclass(frozen=True)
class WorkerDir:
    """Directory of a worker (`mmkd.worker`): temporary on its own machine, or on Slurm under the root."""

    path: Path

    inbox = _Below("inbox")
    """Assignments, which the controller renames into it; the worker removes each before it starts the trial."""
    closed = _Below("closed")
    """Marks a worker that begins nothing more."""
    close = _Below("close")
    """Written by the controller of a worker on Slurm: begin nothing more."""
    record = _Below("worker.json")
    """See `WorkerRecord`."""
    lock = _Below("worker.lock")
    """Held by the worker: a second one of the same directory ends at once."""
    log = _Below("log.txt")
    """What the worker prints itself."""

    def assignment(self, name: str) -> Path:
        """An assignment in the inbox."""
        return self.inbox / f"{name}.json"

    def process(self, name: str) -> Path:
        """The record of the process of a job, written at its start and at its end."""
        return self.path / "processes" / f"{name}.json"

    def tidy(self) -> None:
        """Remove what only a working worker needs: all but `record` and `closed`."""
        for directory in (self.inbox, self.process("").parent):
            shutil.rmtree(directory, ignore_errors=True)
        for file in (self.lock, self.close):
            file.unlink(missing_ok=True)


@dataclass(frozen=True)
class RowDir:
    """Directory of one row: one method on one data set with one pairing; one Optuna study."""

    path: Path

    @property
    def name(self) -> str:
        """The row's name in its studies: the directory's without the hash."""
        return self.path.name.rpartition("-")[0]

    row = _Below("row.json")
    """The row's identity, as JSON."""
    study = _Below("study.toml")
    """A copy of the study file when the row began."""
    code = _Below("code.json")
    """Versions of the code that its trials ran, with their dates, as JSON; see `sweeps.actions.snapshot`."""
    winner = _Below("winner.json")
    """The winner and the final runs that count, as JSON; absent until all trials are reported."""
    journal = _Below("journal.log")
    """Optuna's journal, written by the controller alone."""
    finished = _Below("finished.jsonl")
    """One JSON line per finished trial: a cache of the trials' directories, see `mmkd.finished`."""
    lock = _Below("controller.lock")
    """Held by the controller that works on the row."""

    def trial(self, number: int) -> TrialDir:
        """A tuning trial, by Optuna's number."""
        return TrialDir(self.path / "trials" / str(number))

    def final_run(self, seed: int, digest: str) -> TrialDir:
        """The final run of the winner whose configuration has `digest`, on a fresh seed."""
        return TrialDir(self.path / "confirm" / f"{seed}-{digest[:8]}")

    def trials(self) -> list[TrialDir]:
        """The tuning trials' directories by number."""
        found = [p for p in self.path.glob("trials/*") if p.name.isdecimal()]
        return [TrialDir(p) for p in sorted(found, key=lambda p: int(p.name))]

    def final_runs(self) -> list[TrialDir]:
        """The final runs' directories by seed, superseded ones included."""
        found = [p for p in self.path.glob("confirm/*-*") if p.name.split("-")[0].isdecimal()]
        return [TrialDir(p) for p in sorted(found, key=lambda p: (int(p.name.split("-")[0]), p.name))]


@dataclass(frozen=True)
class Root:
    """Directory of all rows, teachers and studies, on a file system that all nodes share."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> Root:
        """The root at a path as the user spells it: absolute and without `..`, as jobs are named after it.

        Symbolic links stay, as on another node they may lead elsewhere, unless one stands before a `..`.
        """
        plain = Path(os.path.abspath(path))
        return cls(plain if plain.resolve() == path.resolve() else path.resolve())

    def teacher(self, digest: str) -> TrialDir:
        """The teacher whose configuration has `digest`: trained once, shared by all rows."""
        return TrialDir(self.path / "teachers" / digest[:16])

    def row(self, name: str, digest: str) -> RowDir:
        """The row of that identity."""
        return RowDir(self.path / "rows" / f"{name}-{digest[:8]}")

    def rows(self) -> list[RowDir]:
        """All rows' directories, by name."""
        return [RowDir(p) for p in sorted(self.path.glob("rows/*")) if p.is_dir()]

    def teachers(self) -> list[TrialDir]:
        """All teachers' directories."""
        return [TrialDir(p) for p in sorted(self.path.glob("teachers/*")) if p.is_dir()]

    def split(self, digest: str) -> Path:
        """The record of the drawn split of that digest: the samples of each part, and their groups."""
        return self.path / "splits" / f"{digest[:16]}.json"

    def reference(self, digest: str) -> Path:
        """The record of reference models, see `analysis.stats.references`."""
        return self.path / "references" / f"{digest[:16]}.json"

    def study(self, name: str) -> Path:
        """The record of a study: its rows in the order of its table."""
        return self.path / "studies" / f"{name}.json"

    def plan(self, study: str) -> Path:
        """The plan of a study, and its changes."""
        return self.path / "plans" / f"{study}.json"

    def stop(self, name: str) -> Path:
        """Written by `launch.py --cancel`: the controller of that study ends its jobs and itself."""
        return self.path / "studies" / f"{name}.stop"

    def controller_log(self, name: str) -> Path:
        """Output of the detached controller of that study."""
        return self.path / "studies" / f"{name}.controller.log"

    def controller_script(self, name: str) -> Path:
        """The sbatch script of the detached controller of that study, which is left beside its log."""
        return self.controller_log(name).with_suffix(".sbatch")

    workers = _Below("workers")
    """Directories of workers on Slurm, each named after its job's id, and their logs."""

    def worker_script(self, study: str) -> Path:
        """The sbatch script of a study's workers; their logs stand beside it."""
        return self.workers / f"{study}.sbatch"

    def worker(self, job: str) -> WorkerDir:
        """The worker that is the Slurm job of that id."""
        return WorkerDir(self.workers / job)

    methods = _Below("methods.json")
    """Facts of methods, see `mmkd.distillation.facts`."""

    code = _Below("code")
    """Copies of the code that jobs run, and patches of what differed from a commit."""

    def data(self, name: str) -> Path:
        """A synthetic data set that a study made."""
        return self.path / "data" / name
