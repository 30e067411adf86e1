"""Ask, submit, watch, tell: keeps the slots busy until every row is done.

The directories are the truth. What the controller holds in memory can be built from them at any time, which is what a
relaunch does; the only other thing that it writes is each row's Optuna journal.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mmkd.files import read_json, write_text
from mmkd.lock import FileLock, LockHeld, is_held
from mmkd.results import (
    Failure,
    Status,
    current_attempt,
    read_metrics,
    record_submission,
)
from mmkd.rundir import Root, TrialDir
from slurm.backend import Backend, Job, Report
from sweeps.attempts import Verdict, decide
from sweeps.planning import TUNING_SEED, Row
from sweeps.reporting import Reporter
from sweeps.rowwork import RowWork, Task, clean_up, teacher_task, usable_result, write_config

HEARTBEAT_SECONDS = 30.0
ENDING_SECONDS = 60.0
"""How long jobs are given to write a checkpoint when the user stops the controller."""


class Interrupted(Exception):
    """The user asked the controller to stop; everything is on disk."""


@dataclass(frozen=True)
class Running:
    """A job that is, or may be, alive; `owner` is None for a teacher.

    `job` is "" where an earlier controller died before it could note the id.
    """

    task: Task
    owner: RowWork | None
    attempt: int
    job: str


class Teachers:
    """The teachers that the rows need: each trained once, by whichever controller claims it."""

    def __init__(self, root: Root) -> None:
        self.root, self.launched = root, time.time()
        self._tasks: dict[tuple[str, int], Task] = {}
        self._claims: dict[TrialDir, FileLock] = {}
        self._ready: set[TrialDir] = set()
        self.failed: dict[TrialDir, str] = {}

    def task(self, row: Row, seed: int) -> Task:
        """The teacher of a row and seed; made once, for every round asks."""
        key = (row.digest, seed)
        if key not in self._tasks:
            self._tasks[key] = teacher_task(self.root, row, seed)
        return self._tasks[key]

    def ready(self, row: Row, seed: int) -> bool:
        """Whether the teacher of a row and seed is trained (or none is needed)."""
        if row.teacher is None:
            return True
        directory = self.task(row, seed).directory
        if directory not in self._ready and directory not in self.failed:
            self._look(directory)
        return directory in self._ready

    def claim(self, directory: TrialDir) -> bool:
        """Whether we may train this teacher: nobody else does."""
        if directory in self._claims:
            return True
        directory.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory.claim)
        try:
            lock.acquire()
        except LockHeld:
            return False
        self._claims[directory] = lock
        return True

    def renew(self) -> None:
        """Fresh heartbeats of all claims."""
        for lock in self._claims.values():
            lock.renew()

    def release(self) -> None:
        """Give all claims back."""
        for lock in self._claims.values():
            lock.release()
        self._claims.clear()

    def _look(self, directory: TrialDir) -> None:
        result = usable_result(directory)
        decision = decide(directory, self.launched)
        if result is not None and result.status is Status.COMPLETE:
            self._ready.add(directory)
        elif result is not None:
            self.failed[directory] = f"is {result.status}: {result.reason}"
        elif decision.verdict is Verdict.GIVE_UP:
            self.failed[directory] = f"failed for good: {decision.reason}"
        else:
            return
        # A controller that was killed may have left its claim.
        if directory.claim.exists() and self.claim(directory):
            clean_up(directory)
            self._claims.pop(directory).release()


class Controller:
    """Runs the rows' trials on a backend, at most `parallel` at a time.

    Args:
        rows: the rows, locked and opened.
        root: where everything lies.
        backend: where jobs run.
        parallel: slots.
        reporter: is told what happens.
        stop_asked: asked in every round; True ends with `Interrupted`.
        interval: seconds between rounds.
    """

    def __init__(
        self,
        rows: Sequence[RowWork],
        root: Root,
        backend: Backend,
        parallel: int,
        reporter: Reporter,
        stop_asked: Callable[[], bool] = lambda: False,
        interval: float = 0.2,
    ) -> None:
        self.rows, self.backend, self.parallel, self.reporter = list(rows), backend, parallel, reporter
        self.stop_asked, self.interval = stop_asked, interval
        self.teachers = Teachers(root)
        self.launched, self.ending = self.teachers.launched, False
        self.running: dict[TrialDir, Running] = {}
        self._renewed = time.monotonic()

    def run(self) -> None:
        """Work until every row is done.

        Raises:
            Interrupted: `stop_asked`; jobs have been asked to end, and the same command goes on.
            LockLost: another controller has taken over a row.
        """
        try:
            while True:
                self._collect()
                busy = self._fill()
                self.reporter.progress(self._remaining(), [running.task for running in self.running.values()])
                if not busy and not self.running:
                    return
                if self.stop_asked():
                    self._end_jobs()
                    raise Interrupted
                self._renew()
                time.sleep(self.interval)
        finally:
            self.teachers.release()

    def _remaining(self) -> int:
        teachers = {
            self.teachers.task(work.row, seed).directory
            for work in self.rows
            for seed in work.teacher_seeds()
            if not self.teachers.ready(work.row, seed)
        }
        return len(teachers) + sum(work.remaining for work in self.rows)

    def _collect(self) -> None:
        """Take note of jobs that have ended."""
        reports = self.backend.poll([r.job for r in self.running.values() if r.job])
        for directory, running in list(self.running.items()):
            # Without an id only the job's own lock tells whether it lives; it may also have died before it began.
            report = reports[running.job] if running.job else Report(is_held(directory.lock), Failure.NODE_FAIL)
            if not report.alive:
                del self.running[directory]
                self._note_end(running, report)

    def _note_end(self, running: Running, report: Report) -> None:
        """Write down how an attempt ended, and what follows."""
        directory, task = running.task.directory, running.task
        ran = read_json(directory.ran(running.attempt)) or {}
        if directory.result.exists():
            end, message = "complete", ""
        else:
            told = ran.get("end")
            lost = Failure.PREEMPTED if self.ending else report.failure or Failure.ERROR
            end = str(told) if told in set(Failure) else lost
            message = str(ran.get("message") or "") or f"{report.message}; {last_line(directory, running.attempt)}"
        epochs = len(read_metrics(directory))
        record_submission(directory, running.attempt, end=end, message=message, epochs=epochs, ended=time.time())
        if self.ending and end != "complete":
            return
        if decide(directory, self.launched).verdict is Verdict.SUBMIT:
            self.reporter.event(f"{task.label}: attempt {running.attempt} ended ({end}: {message}); it goes on")
        elif running.owner is None:
            self.reporter.event(f"{task.label}: {'trained' if end == 'complete' else f'failed: {message}'}")
        else:
            self._settle(task, running.owner, news=True)

    def _fill(self) -> bool:
        """Give free slots work; whether any work is left that is not running."""
        waiting = False
        if len(self.running) >= self.parallel:
            return True
        for task, owner in self._due():
            if task.directory in self.running:
                continue
            if owner is None and not self.teachers.claim(task.directory):
                waiting = True  # another controller trains this teacher
                continue
            verdict = decide(task.directory, self.launched).verdict
            if verdict is Verdict.WATCH:
                self._attach(task, owner)
            elif verdict is Verdict.SUBMIT:
                self._submit(task, owner)
            else:
                self._settle(task, owner, news=task.kind == "tuning")
                waiting = True
            if len(self.running) >= self.parallel:
                return True
        return waiting

    def _settle(self, task: Task, owner: RowWork | None, *, news: bool) -> None:
        line = owner.settle(task) if owner else ""
        if line and news:
            self.reporter.event(f"{task.label}: {line}")

    def _due(self) -> Iterator[tuple[Task, RowWork | None]]:
        """All that could run now, most urgent first: teachers that tuning waits for, trials, the other teachers."""
        yield from self._teachers_due(urgent=True)
        for work in self.rows:
            for task in work.tasks(self.teachers.ready):
                yield task, work
        yield from self._teachers_due(urgent=False)

    def _teachers_due(self, *, urgent: bool) -> Iterator[tuple[Task, None]]:
        seen = set()
        for work in self.rows:
            for seed in work.teacher_seeds():
                if (seed == TUNING_SEED) is not urgent or self.teachers.ready(work.row, seed):
                    continue
                task = self.teachers.task(work.row, seed)
                if task.directory in self.teachers.failed:
                    work.miss_teacher(seed, self.teachers.failed[task.directory])
                elif task.directory not in seen:
                    seen.add(task.directory)
                    yield task, None

    def _attach(self, task: Task, owner: RowWork | None) -> None:
        """Watch a job that an earlier controller started."""
        number = current_attempt(task.directory)
        submitted = read_json(task.directory.submitted(number)) or {}
        self.running[task.directory] = Running(task, owner, number, str(submitted.get("job", "")))

    def _submit(self, task: Task, owner: RowWork | None) -> None:
        """Announce a new attempt, submit it, and note its id.

        Whatever is cut off in between: the next attempt has another number, and a job that finds it in the directory
        ends without a write.
        """
        write_config(task)
        directory = task.directory
        attempt = current_attempt(directory) + 1
        facts = {"attempt": attempt, "backend": self.backend.name, "submitted": time.time()}
        record_submission(directory, attempt, **facts)
        write_text(directory.attempt, f"{attempt}\n")
        job = self.backend.submit(make_job(task, attempt))
        record_submission(directory, attempt, job=job)
        self.running[directory] = Running(task, owner, attempt, job)

    def _renew(self) -> None:
        if time.monotonic() - self._renewed > HEARTBEAT_SECONDS:
            for work in self.rows:
                work.lock.renew()
            self.teachers.renew()
            self._renewed = time.monotonic()

    def _end_jobs(self) -> None:
        """Ask all jobs to end, and wait until they have written their checkpoints."""
        self.ending = True
        self.reporter.event(f"stopping: {len(self.running)} jobs write their checkpoints")
        self.backend.cancel([r.job for r in self.running.values() if r.job])
        deadline = time.monotonic() + ENDING_SECONDS
        while self.running and time.monotonic() < deadline:
            self._collect()
            time.sleep(self.interval)


def make_job(task: Task, attempt: int) -> Job:
    """The job of a task's attempt: the same command everywhere."""
    threads = str(task.config.threads)
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if task.config.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    directory = str(task.directory.path.absolute())
    command = (sys.executable, "-m", "mmkd.trial", directory, "--attempt", str(attempt))
    return Job(f"{task.name}.a{attempt}", command, task.directory.log(attempt), environment)


def last_line(directory: TrialDir, attempt: int) -> str:
    """The last line that an attempt printed."""
    try:
        with directory.log(attempt).open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
            lines = log.read().decode("utf-8", "replace").split("\n")
    except FileNotFoundError:
        return "it left no log"
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:300] if said else "its log is empty"
