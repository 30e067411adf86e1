"""Run the controller loop: sample, submit, watch and report trials until every row is done.

The directories are the source of truth. The controller's memory can be rebuilt from them at any time, which is what a
relaunch does. Besides them it writes only each row's Optuna journal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from mmkd.errors import UserError
from mmkd.formatting import count, replicate_title, teacher_label
from mmkd.rundir import Root
from mmkd.trial_state import decide, pause_left
from slurm.backend import Backend, SubmissionDelayed, SubmissionRefused
from sweeps.controller.followed_rows import FollowedRows
from sweeps.controller.jobs import Ended, Jobs
from sweeps.controller.progress import Reporter
from sweeps.controller.pruning import Pruning
from sweeps.controller.row import RowWork, spent_before
from sweeps.controller.stopping import Halted, Interrupted, Stop
from sweeps.controller.tasks import Task
from sweeps.controller.teachers import Teachers
from sweeps.rows import TUNING_SEED
from sweeps.teacher_search import TeacherSearch

HEARTBEAT_SECONDS = 30.0
ENDING_SECONDS = 60.0
"""Time for jobs to write a checkpoint when the user stops the controller."""
FILLING_SECONDS = 5.0
"""Filling many slots pauses after this time, to collect ended jobs, renew locks and react to the user."""
LOOKS_A_SECOND = 2000.0
"""A round reads one file per running job. This limit keeps the load on the shared file system constant."""
PATIENCE, LONGEST_ROUND = 0.01, 0.5
"""A round also lasts this share of the time since the last end, up to so many seconds: where ends are rare, nothing is
lost by looking less often."""
LISTED_A_ROUND = 20
"""A round adds at most so many finished trials to each `finished.jsonl`; a first relaunch has thousands to add."""


class Controller:
    """Run the rows' trials on a backend, at most `parallel` at a time.

    Args:
        rows: the rows, locked and opened.
        root: the root directory.
        backend: runs the jobs.
        parallel: number of slots.
        reporter: receives events and progress.
        stop_asked: called in every round; any answer ends the run with `Interrupted`.
        environment: variables for each job.
        code: hash and directory of the code that trials must run, see `mmkd.trial`; "": any.
        max_gpu_hours: submit no new attempt once this much is spent.
        news: called at each heartbeat; its text is reported.
        on_choice: called when a tuned teacher is chosen: from then on the teachers of all seeds are known.
        interval: shortest time between rounds, in seconds; None: the backend's.
        followed: the study's rows that other controllers work on.
    """

    def __init__(
        self,
        rows: Sequence[RowWork],
        root: Root,
        backend: Backend,
        parallel: int,
        reporter: Reporter,
        stop_asked: Callable[[], Stop | None] = lambda: None,
        *,
        environment: Mapping[str, str] | None = None,
        code: str = "",
        max_gpu_hours: float | None = None,
        news: Callable[[], str] = lambda: "",
        on_choice: Callable[[], None] = lambda: None,
        interval: float | None = None,
        followed: FollowedRows | None = None,
    ) -> None:
        self.rows, self.backend, self.parallel, self.reporter = list(rows), backend, parallel, reporter
        self.stop_asked, self.news, self.followed = stop_asked, news, followed or FollowedRows()
        self.interval = backend.round_seconds if interval is None else interval
        self.max_gpu_seconds = None if max_gpu_hours is None else 3600 * max_gpu_hours
        self.teachers, self.on_choice, self.prune = Teachers(self._report_choice), on_choice, Pruning()
        self.launch = self.teachers.launch
        for work in self.rows:
            work.launch = self.launch
        spent = spent_before(self.rows)
        self.jobs = Jobs(root, backend, environment or {}, spent, self.launch, code)
        self.budget_spent = False
        """True while submissions are withheld because the budget is spent."""
        self._delay = ""
        self._failures: dict[str, str] = {}
        """What was said about a failure, and the trial of which it was said first."""
        self._renewed = self._ended = time.monotonic()

    def run(self) -> None:
        """Work until every row is done, or nothing more may be submitted.

        Raises:
            Interrupted: `stop_asked` answered; everything is on disk and the same command resumes.
            LockLost: another controller has taken over a row.
            UserError: the backend refuses such jobs.
            Halted: a person has to change something.
        """
        try:
            self._attach_living()
            while True:
                self._join()
                for ended in self.jobs.collect():
                    self._follow_up(ended)
                self._report_news()
                unaccounted = self.jobs.unaccounted
                for work in self.rows:
                    work.finished.add_missing(unaccounted, LISTED_A_ROUND)
                    if work.is_finished and not self.jobs.concern(work.directory):
                        work.close()  # another study may need the row
                self._renew()  # Slurm may have taken its time to answer, and may again
                busy = self._fill()
                self.reporter.progress(self._remaining(), [r.task for r in self.jobs.running.values()])
                if not self.jobs.running and self._is_over(busy):
                    return self.backend.release()
                if stop := self.stop_asked():
                    self._stop(stop)
                    raise Interrupted
                self._renew()
                for label in self.prune(self.jobs.running.values()):
                    self.reporter.event(f"{label}: asked to stop by the pruner")
                patience = min(PATIENCE * (time.monotonic() - self._ended), LONGEST_ROUND)
                time.sleep(max(self.interval, patience, len(self.jobs.running) / LOOKS_A_SECOND))
        finally:
            self.jobs.close_accounts()
            self.teachers.release()
            for work in self.rows:
                work.finished.add_missing()

    def _is_over(self, busy: bool) -> bool:
        """True if there is nothing to wait for, where nothing runs; `busy`: work is left."""
        if self.budget_spent:
            self.jobs.close_accounts()  # the scheduler's costs may be lower
            return self._budget_is_spent()
        return not busy and not self.followed

    def _join(self) -> None:
        """Work on rows that were followed so far, if their controllers have ended or died."""
        for work in self.followed.look():
            work.launch = self.launch
            self.rows.append(work)
            self.jobs.add_spent(work.gpu_seconds())
            how = "taken over" if work.remaining else "finished by another controller"
            self.reporter.event(f"row {work.row.title}: {how} {self.followed.joined(work)}".rstrip())
            self._attach_living()

    def _report_news(self) -> None:
        """Report what the jobs' ends say about nodes and people; end the jobs if a person has to act.

        Raises:
            Halted: in that case.
        """
        while self.jobs.news:
            self.reporter.event(self.jobs.news.pop(0))
        if self.jobs.hopeless:
            self._stop(Stop.WITH_JOBS)
            raise Halted(self.jobs.hopeless)

    def _remaining(self) -> int:
        teachers = {
            task.directory
            for work in self.rows
            for seed in work.teacher_seeds()
            if not self.teachers.ready(work.row, seed)
            for task in self.teachers.needed(work.row, seed)
            if not self.teachers.is_trained(task.directory)
        }
        return len(teachers) + sum(work.remaining for work in self.rows)

    def _report_choice(self, search: TeacherSearch, how: str) -> None:
        """Report which candidate is the teacher of a replicate."""
        name = replicate_title(teacher_label(search.base.branch), search.replicate)
        self.reporter.event(f"{name}: {how}")
        self.on_choice()

    def _follow_up(self, ended: Ended) -> None:
        """Report how an attempt ended and record the outcome of a finished trial."""
        self._ended = time.monotonic()
        task, owner = ended.running.task, ended.running.owner
        if decide(task.directory, self.launch).is_due:
            number = ended.running.attempt
            self.reporter.event(f"{task.label}: attempt {number} ended ({ended.end}: {ended.message}); retrying")
        elif owner is None:
            how = "trained" if ended.end == "complete" else f"failed: {ended.message}"
            self.reporter.event(f"{task.label}: {how}")
        else:
            self._settle(task, owner, news=True)

    def _attach_living(self) -> None:
        """Watch all jobs of an earlier controller, even if they exceed the slots."""
        for task, owner in self._due(sample=False):
            mine = owner is not None or self.teachers.claim(task.directory)
            is_new = task.directory not in self.jobs.running
            if mine and is_new and decide(task.directory, self.launch).is_live:
                self.jobs.attach(task, owner)

    def _fill(self) -> bool:
        """Fill free slots. Return True if work is left that is not running."""
        running, waiting, began = self.jobs.running, False, time.monotonic()
        may_submit = not self._budget_is_spent() and not self.jobs.blocked
        slots = self._slots() if may_submit else self.parallel
        if running and len(running) >= slots:
            return True
        may_submit = may_submit and slots > 0
        for task, owner in self._due(sample=may_submit):
            if task.directory in running:
                continue
            waiting = True
            if owner is None and not self.teachers.claim(task.directory):
                continue  # another controller trains this teacher
            state = decide(task.directory, self.launch)
            if state.is_live:
                self.jobs.attach(task, owner)
            elif not state.is_due:
                self._settle(task, owner, news=task.kind == "tuning")
            elif pause_left(task.directory, self.launch):
                continue
            elif not may_submit or not self._submit(task, owner):
                return True
            if len(running) >= slots or time.monotonic() - began > FILLING_SECONDS:
                return True
        return waiting or (not may_submit and self._remaining() > 0)

    def _slots(self) -> int:
        """Jobs that may run at once now.

        Raises:
            UserError: the scheduler refuses the workers that would run them.
        """
        try:
            available = self.backend.slots(self._remaining)
        except SubmissionDelayed as delay:
            self._say_delay("workers", str(delay))
            return 0
        except SubmissionRefused as refusal:
            raise UserError(str(refusal)) from None
        return self.parallel if available is None else min(self.parallel, available)

    def _submit(self, task: Task, owner: RowWork | None) -> bool:
        """Submit an attempt; False if the scheduler delays it, which is reported once."""
        submitted = self.jobs.submit(task, owner)
        self._say_delay(task.label, self.jobs.delayed)
        return submitted

    def _say_delay(self, label: str, reason: str) -> None:
        if reason and reason != self._delay:
            self.reporter.event(f"{label}: waiting: Slurm says {reason}")
        self._delay = reason

    def _budget_is_spent(self) -> bool:
        before, limit = self.budget_spent, self.max_gpu_seconds
        self.budget_spent = limit is not None and self.jobs.gpu_seconds() >= limit and self._remaining() > 0
        if self.budget_spent and not before:
            self.reporter.event(f"{self.jobs.gpu_seconds() / 3600:.2f} GPU-hours are spent: nothing new is submitted")
        return self.budget_spent

    def _settle(self, task: Task, owner: RowWork | None, *, news: bool) -> None:
        line = owner.settle(task) if owner else ""
        if line.startswith("failed"):
            first = self._failures.setdefault(line, task.label)
            line = line if first == task.label else f"failed like {first}"
        if line and news:
            self.reporter.event(f"{task.label}: {line}")

    def _due(self, *, sample: bool) -> Iterator[tuple[Task, RowWork | None]]:
        """Yield everything that could run now, most urgent first: tuning's teachers, trials, other teachers.

        `sample`: include new trials.
        """
        yield from self._teachers_due(urgent=True)
        for work in self.rows:
            for task in work.tasks(self.teachers.ready, sample=sample):
                yield task, work
        yield from self._teachers_due(urgent=False)

    def _teachers_due(self, *, urgent: bool) -> Iterator[tuple[Task, None]]:
        seen = set()
        for work in self.rows:
            for seed in work.teacher_seeds():
                if (seed == TUNING_SEED) is not urgent or self.teachers.ready(work.row, seed):
                    continue
                tasks = self.teachers.needed(work.row, seed)
                failures = [self.teachers.failed.get(task.directory) for task in tasks]
                if reason := all(failures) and failures[0]:
                    work.miss_teacher(seed, reason)
                for task, failure in zip(tasks, failures, strict=True):
                    if not failure and task.directory not in seen and not self.teachers.is_trained(task.directory):
                        seen.add(task.directory)
                        yield task, None

    def _renew(self) -> None:
        if time.monotonic() - self._renewed > HEARTBEAT_SECONDS:
            for work in self.rows:
                if work.is_locked:
                    work.lock.renew()
            self.teachers.renew()
            self._renewed = time.monotonic()
            if said := self.news():
                self.reporter.event(said)

    def _stop(self, stop: Stop) -> None:
        """End the jobs and wait for their checkpoints, or leave them running."""
        if stop is Stop.WITHOUT_JOBS:
            left = count(len(self.jobs.running), "job")
            self.reporter.event(f"stopping; {left} left running, to be found by the next launch")
            return
        self.reporter.event(f"stopping: waiting for checkpoints of {count(len(self.jobs.running), 'job')}")
        self.jobs.cancel()
        deadline = time.monotonic() + ENDING_SECONDS
        while self.jobs.running and time.monotonic() < deadline:
            for ended in self.jobs.collect(ending=True):
                if ended.end == "complete":
                    self._follow_up(ended)
            time.sleep(self.interval)
        self.backend.release()
