"""Submit and watch the controller's jobs, and record every attempt."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from mmkd.attempts import current_attempt, last_attempt, read_attempt, record_submission
from mmkd.errors import UserError
from mmkd.failures import Failure
from mmkd.files import write_text
from mmkd.lock import is_held
from mmkd.metrics_log import read_metrics
from mmkd.records import RunRecord
from mmkd.rundir import Root, RowDir, TrialDir
from slurm.accounting import FAILURES
from slurm.backend import Backend, Handle, Report, SubmissionDelayed, SubmissionRefused
from sweeps.controller.bad_nodes import BadNodes
from sweeps.controller.job_names import handle_of, job_tag
from sweeps.controller.last_words import has_failed_setup, last_line, why_ended
from sweeps.controller.make_job import make_job
from sweeps.controller.row import RowWork
from sweeps.controller.run_times import RunTimes
from sweeps.controller.running import Ended, Running, Unaccounted
from sweeps.controller.storms import Storms
from sweeps.controller.tasks import Task, write_config

SHORTEST_WAIT, LONGEST_WAIT = 5.0, 60.0
"""Seconds until a delayed submission is tried again, doubled each time."""
VISIBLE_SECONDS = 60.0
"""A network file system may take this long to show what a job on another node wrote last."""
CLOSING_TRIES, CLOSING_SECONDS = 3, 2.0
"""At its end, a controller queries accounting so often for its last jobs."""
ACCOUNTS_SECONDS = 600.0
"""Time to wait for the scheduler's accounting of an ended job."""


class Jobs:
    """The running jobs of a controller, by trial directory.

    Args:
        root: the root directory; part of the jobs' names.
        backend: runs the jobs.
        environment: variables for each job.
        spent: GPU-seconds of earlier attempts.
        launch: the word of this launch, see `trial_state`.
        code: hash and directory of the code that trials must run, see `mmkd.trial`; "": any.
    """

    def __init__(
        self,
        root: Root,
        backend: Backend,
        environment: Mapping[str, str],
        spent: float = 0.0,
        launch: str = "",
        code: str = "",
    ) -> None:
        self.backend, self.environment, self.tag, self.launch = backend, environment, job_tag(root), launch
        self.code = code
        self.nodes, self.storms = BadNodes(), Storms()
        self.news: list[str] = []
        """Lines about nodes and storms that were not reported yet."""
        self.running: dict[TrialDir, Running] = {}
        self.pending: dict[TrialDir, str] = {}
        """Jobs that have not started, with the scheduler's reason."""
        self.delayed = ""
        """The scheduler's reason to delay submissions; "" if it does not."""
        self._wait, self._again = SHORTEST_WAIT, 0.0
        self._spent = spent
        self._records: dict[TrialDir, tuple[int, RunRecord]] = {}
        self._times, self._is_in_trouble = RunTimes(), False
        self._late: dict[TrialDir, float] = {}
        self._unaccounted: dict[Handle, Unaccounted] = {}

    @property
    def blocked(self) -> bool:
        """True while a delayed submission waits for its next try, or a storm of cancellations to pass."""
        return time.monotonic() < self._again or self.storms.is_pausing

    @property
    def hopeless(self) -> str:
        """The reason why a person has to act before anything more is submitted; "" if there is none."""
        return self.storms.hopeless or self.nodes.hopeless

    def submit(self, task: Task, owner: RowWork | None) -> bool:
        """Announce a new attempt, submit it and record its id. Return False if the scheduler delays it.

        A kill in between is harmless: the job's name contains the attempt, the next attempt has another number, and a
        job that finds another number in the directory ends without writing.

        Raises:
            UserError: the scheduler refuses the job.
        """
        write_config(task)
        directory = task.directory
        number = current_attempt(directory) + 1
        job = make_job(task, number, self.tag, self.environment, self.nodes.excluded, self.code)
        gpus = self.backend.gpus_for(job)
        facts = {"attempt": number, "backend": self.backend.name, "name": job.name, "gpus": gpus}
        facts |= {"launch": self.launch, "submitted": time.time(), **self.backend.request_of(job)}
        record_submission(directory, number, **facts)
        write_text(directory.attempt, f"{number}\n")
        handle = Handle(job.name)
        try:
            handle = self.backend.submit(job)
        except SubmissionDelayed as delay:
            self.delayed = str(delay)
            self._again = time.monotonic() + self._wait
            self._wait = min(2 * self._wait, LONGEST_WAIT)
            if delay.certain:
                _take_back(directory, number)
                return False
        except SubmissionRefused as refusal:
            _take_back(directory, number)
            raise UserError(f"{task.label}: {refusal}") from None
        else:
            _record_handle(directory, number, handle)
            self.delayed, self._wait = "", SHORTEST_WAIT
        self.running[directory] = Running(task, owner, number, handle, gpus, job.avoid)
        return True

    def attach(self, task: Task, owner: RowWork | None) -> None:
        """Watch a job that an earlier controller submitted or was about to submit; another backend's by its files."""
        attempt = last_attempt(task.directory)
        handle = handle_of(attempt)
        if attempt.submitted.backend != self.backend.name:
            handle = replace(handle, id="")
        script = task.directory.log(attempt.number).with_suffix(".sbatch").absolute()
        handle = replace(handle, script=str(script))
        self.running[task.directory] = Running(task, owner, attempt.number, handle, attempt.gpus)

    def collect(self, *, ending: bool = False) -> Iterator[Ended]:
        """Record and yield the attempts that have ended; `ending`: because of `cancel`."""
        reports = self._reports()
        self._note_trouble()
        for directory, running in list(self.running.items()):
            report = reports[directory]
            self.pending.pop(directory, None)
            if report.alive:
                self._note_handle(running, report)
                if report.waits and directory not in self._records:
                    self.pending[directory] = report.waits
            elif not self._is_late(running, report):
                del self.running[directory]
                yield self._note_end(running, report, ending)
        self._note_usage()

    def shown(self) -> tuple[list[Task], list[str]]:
        """The tasks that run, and the reasons of those that are pending."""
        running = [running.task for directory, running in self.running.items() if directory not in self.pending]
        return running, [reason for directory, reason in self.pending.items() if directory in self.running]

    @property
    def unaccounted(self) -> set[TrialDir]:
        """Directories whose attempt's record will be given the scheduler's costs."""
        return {ended.directory for ended in self._unaccounted.values()}

    def concern(self, row: RowDir) -> bool:
        """True if a trial of the row is running, or its costs are not accounted yet."""
        return any(d.path.is_relative_to(row.path) for d in (*self.running, *self.unaccounted))

    def cancel(self) -> None:
        """Request all jobs to end."""
        self.backend.cancel([running.handle for running in self.running.values()])

    def gpu_seconds(self) -> float:
        """Sum the GPU-seconds of ended and running attempts."""
        running = sum(running.gpus * self._times.seconds(directory) for directory, running in self.running.items())
        return self._spent + running + self.backend.idle_gpu_seconds()

    def add_spent(self, gpu_seconds: float) -> None:
        """Count what was spent by others."""
        self._spent += gpu_seconds

    def close_accounts(self) -> None:
        """Query accounting a last time; it records an end a little later than we do."""
        for _ in range(CLOSING_TRIES):
            self._note_usage(at_once=True)
            if not self._unaccounted:
                return
            time.sleep(CLOSING_SECONDS)

    def _reports(self) -> dict[TrialDir, Report]:
        said = {d: Report(False) for d, r in self.running.items() if not self.backend.prompt and self._has_ended(r)}
        asked = {d: r.handle for d, r in self.running.items() if d not in said}
        answers = self.backend.poll(asked.values())
        # Where the backend cannot tell, the job's own lock does; it may also have died before it began.
        found = {d: answers.get(h) or Report(is_held(d.lock), Failure.NODE_FAIL) for d, h in asked.items()}
        return said | found

    def _note_trouble(self) -> None:
        """Tell once that the backend knows nothing new, and once that it does again; pass on its notes."""
        self.news += self.backend.take_notes()
        trouble = self.backend.trouble
        if bool(trouble) is not self._is_in_trouble:
            until = f"Slurm does not answer ({trouble}): all jobs count as running until it does"
            self._tell(until if trouble else "Slurm answers again")
        self._is_in_trouble = bool(trouble)

    def _has_ended(self, running: Running) -> bool:
        """True if the job itself recorded its end; reads its record when it has changed."""
        path = running.task.directory.job_record(running.attempt)
        try:
            stamp = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        known = self._records.get(running.task.directory)
        if known is None or known[0] != stamp:
            known = (stamp, read_attempt(running.task.directory, running.attempt).ran)
            self._records[running.task.directory] = known
            if self._times.see(running.task.directory, known[1]):
                self.nodes.start(known[1].node)
        return known[1].end != ""

    def _is_late(self, running: Running, report: Report) -> bool:
        """True if the job's result or last record may still become visible on this node."""
        directory = running.task.directory
        ran = read_attempt(directory, running.attempt).ran
        is_error = report.failure == Failure.ERROR and not has_failed_setup(directory, running.attempt)
        unsaid = not ran.end and (report.failure == "" or is_error)
        if self.backend.prompt or directory.result.exists() or not (unsaid or ran.end == "complete"):
            return False
        return time.monotonic() - self._late.setdefault(directory, time.monotonic()) < VISIBLE_SECONDS

    def _note_handle(self, running: Running, report: Report) -> None:
        if report.handle is not None and not running.handle.id:
            directory = running.task.directory
            _record_handle(directory, running.attempt, report.handle)
            self.running[directory] = replace(running, handle=report.handle)

    def _note_end(self, running: Running, report: Report, ending: bool) -> Ended:
        directory = running.task.directory
        ran = read_attempt(directory, running.attempt).ran
        if directory.result.exists():
            end, message = "complete", ""
        else:
            reported = Failure.PREEMPTED if ending else report.failure
            if reported == Failure.ERROR and not ran.end and not self.backend.prompt:
                # A job records its own errors: it was killed, or the disk was full.
                reported = Failure.NODE_FAIL if ran.started is not None else Failure.NOT_STARTED
            end = why_ended(directory, running.attempt, ran.end, reported)
            message = ran.message or f"{report.message}; {last_line(directory, running.attempt)}"
        handle = running.handle if running.handle.id else report.handle or running.handle
        seconds = self._times.end(directory, ran)
        cost = round(running.gpus * seconds, 3)
        facts = {"end": end, "message": message, "epochs": len(read_metrics(directory)), "ended": time.time()}
        facts |= {"seconds": round(seconds, 3)}
        facts |= {"name": handle.name, "job": handle.id, "gpus": running.gpus, "gpu_seconds": cost}
        facts |= {"node": report.node} if report.node else {}
        record_submission(directory, running.attempt, **facts)
        if end == "complete" or ran.started is not None:
            self.nodes.start(ran.node or report.node)
        if end == Failure.NOT_STARTED:
            self._tell(self.nodes.fail(report.node, running.avoid, message, others_run=bool(self._times)))
        elif end == Failure.CANCELLED == report.failure and handle.id and not ending:
            self._tell(self.storms.note(len(self.running)))
        self._records.pop(directory, None)
        self._late.pop(directory, None)
        self._again = 0.0  # where the site's limit was full, there is room now
        self._spent += cost
        if not self.backend.prompt and handle.id and not handle.worker:
            self._unaccounted[handle] = Unaccounted(directory, running.attempt, cost, time.monotonic())
        return Ended(running, end, message)

    def _note_usage(self, *, at_once: bool = False) -> None:
        """Replace our own costs by those of the scheduler's accounting."""
        if not self._unaccounted:
            return
        for handle, facts in self.backend.usage(self._unaccounted, at_once=at_once).items():
            ended = self._unaccounted.pop(handle)
            end = read_attempt(ended.directory, ended.attempt).submitted.end
            cause = FAILURES.get(str(facts.get("state")), Failure.ERROR)
            if end == Failure.PREEMPTED and cause != Failure.ERROR:
                facts = {**facts, "end": cause}  # a job that gets SIGTERM cannot tell why
                if cause == Failure.CANCELLED:
                    self._tell(self.storms.note(len(self.running)))
            record_submission(ended.directory, ended.attempt, **facts)
            self._spent += float(facts.get("gpu_seconds", ended.reckoned)) - ended.reckoned
        oldest = time.monotonic() - ACCOUNTS_SECONDS
        self._unaccounted = {handle: ended for handle, ended in self._unaccounted.items() if ended.since > oldest}

    def _tell(self, line: str) -> None:
        self.news += [line] if line else []


def _record_handle(directory: TrialDir, attempt: int, handle: Handle) -> None:
    worker = {"worker": handle.worker} if handle.worker else {}
    record_submission(directory, attempt, name=handle.name, job=handle.id, **worker)


def _take_back(directory: TrialDir, number: int) -> None:
    """Revoke an announced attempt without a job: its number is free again."""
    write_text(directory.attempt, f"{number - 1}\n")
    directory.controller_record(number).unlink()
