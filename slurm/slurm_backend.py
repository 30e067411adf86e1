"""Jobs on Slurm: submitted through submitit, polled with one batched squeue and sacct at a polite rate."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from slurm.accounting import (
    FAILURES,
    PATIENCE,
    TERMINAL,
    EndedJob,
    NoAnswer,
    QueuedJob,
    sacct,
    scancel,
    script_of,
    squeue,
)
from slurm.backend import Backend, Handle, Job, Report, SubmissionRefused
from slurm.question import QUICK_SECONDS, Question
from slurm.settings import SlurmSettings
from slurm.submission import CommandExecutor

PENDING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD")
ABSENT_SECONDS = 60.0
"""A job that the queue has not shown by name for so long was never created: an sbatch may outlive its controller. One
that it has lacked for so long, and whose end accounting does not tell, is lost: squeue's answer may be empty by
mistake."""


class SlurmBackend(Backend):
    """Jobs of a Slurm cluster.

    A handle refers to the job with its id and its name, or without an id to the latest job of that name.

    Args:
        settings: resources and setup of each job.

    Raises:
        SubmissionRefused: this machine has no Slurm.
    """

    name = "slurm"
    prompt = False
    round_seconds = 0.5  # pending jobs take the slots meanwhile

    def __init__(self, settings: SlurmSettings) -> None:
        self.settings, self.gpus = settings, settings.gpu_count
        self._queue: dict[str, QueuedJob] = {}
        self._names: dict[str, QueuedJob] = {}
        self._asked = self._answered = self._accounted = 0.0
        self._first_seen: dict[Handle, float] = {}
        self._absent: dict[Handle, float] = {}
        """Jobs that the last answers of squeue lacked, and since when."""
        self._usage_asked = 0.0
        self._queue_question: Question[list[QueuedJob]] | None = None
        self._account_question: tuple[set[str], Question[dict[str, EndedJob]]] | None = None
        self._usage_question: Question[dict[str, EndedJob]] | None = None
        self._renamed: dict[str, bool] = {}
        """True for ids of jobs that somebody has renamed."""
        self.questions = 0
        """Calls of squeue and sacct so far."""
        if CommandExecutor.affinity() <= 0:
            raise SubmissionRefused("this machine has no srun: run on a login node, or with --cluster local")

    def script(self, job: Job) -> str:
        """The sbatch script of a job.

        Raises:
            SubmissionRefused: a name or a path would break out of its line of options.
        """
        return CommandExecutor(job, self.settings.after(job.failures)).script

    def gpus_for(self, job: Job) -> float:
        """See `Backend`."""
        return self.settings.after(job.failures).gpu_count

    def request_of(self, job: Job) -> dict[str, str]:
        """See `Backend`."""
        settings = self.settings.after(job.failures)
        values = {"partition": settings.partition, "gpus_requested": settings.gpus, "constraint": settings.constraint}
        return {name: value for name, value in values.items() if value}

    def test_only(self, job: Job) -> str:
        """Ask sbatch whether it would accept a job, and when it would start, without submitting it.

        Raises:
            SubmissionDelayed, SubmissionRefused: it would not, or does not answer.
        """
        return CommandExecutor(job, self.settings.after(job.failures)).test_only()

    def submit(self, job: Job) -> Handle:
        """See `Backend`."""
        try:
            executor = CommandExecutor(job, self.settings.after(job.failures))
            return Handle(job.name, executor.submit_command().job_id, script=str(executor.script_file.absolute()))
        except SubmissionRefused:
            if not job.avoid:
                raise
            return SlurmBackend.submit(self, replace(job, avoid=()))  # perhaps there is no other node

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        """See `Backend`. Slurm is asked at most every `settings.poll` seconds; until then the last answer counts."""
        now = time.monotonic()
        for handle in handles:
            self._first_seen.setdefault(handle, now)
        for handle in self._first_seen.keys() - set(handles):
            del self._first_seen[handle]
            self._absent.pop(handle, None)
        if handles and (self._queue_question or now - self._asked >= self.settings.poll):
            self._ask()
        reports = {handle: self._report(handle) for handle in handles}
        self._ask_accounting_for([handle for handle, report in reports.items() if report is None], reports)
        return {handle: report or Report(True) for handle, report in reports.items()}

    def usage(self, handles: Collection[Handle], *, at_once: bool = False) -> dict[Handle, Mapping[str, Any]]:
        """See `Backend`; asked at the same rate as `poll`."""
        wanted = {handle.id: handle for handle in handles if handle.id and not handle.worker}
        is_due = at_once or self._usage_question or time.monotonic() - self._usage_asked >= self.settings.poll
        if not wanted or not is_due:
            return {}
        is_new = self._usage_question is None
        if self._usage_question is None:
            self.questions += 1
            self._usage_question = Question(partial(sacct, set(wanted)))
        if not self._usage_question.is_answered(QUICK_SECONDS if is_new or at_once else 0.0):
            return {}
        question, self._usage_question, self._usage_asked = self._usage_question, None, time.monotonic()
        try:
            known = question.answer()
        except NoAnswer:
            return {}
        ended = (job for job in known.values() if job.state in FAILURES or job.state == "COMPLETED")
        return {
            wanted[job.id]: job.facts for job in ended if job.name == wanted[job.id].name or self._renamed.get(job.id)
        }

    def cancel(self, handles: Collection[Handle]) -> None:
        """See `Backend`. Checks ids against the queue first: one may belong to another job by now."""
        self._ask(patience=PATIENCE)
        found = [self._find(handle) for handle in handles]
        try:
            scancel({job.id for job in found if job is not None and not job.ended})
        except NoAnswer as error:
            raise ConnectionError(f"jobs could not be cancelled and continue: {error}") from None

    def _ask(self, patience: float = QUICK_SECONDS) -> None:
        """Ask squeue. If it does not answer in time, keep the last answer; a later call looks for the new one."""
        if self._queue_question is None:
            self.questions += 1
            self._queue_question = Question(squeue)
        elif patience == QUICK_SECONDS:
            patience = 0.0  # it was waited for already
        question = self._queue_question
        if not question.is_answered(patience):
            self.trouble = f"squeue has not answered for {time.monotonic() - question.began:.0f} s"
            return
        self._queue_question, self._asked = None, time.monotonic()  # do not ask a slow scheduler all the time
        try:
            jobs = question.answer()
        except NoAnswer as error:
            self.trouble = " ".join(str(error).split())
            return
        self.trouble = ""
        self._answered = question.began
        self._queue = {job.id: job for job in jobs}
        self._names = {job.name: job for job in jobs}

    def _find(self, handle: Handle) -> QueuedJob | None:
        if not handle.id:
            return self._names.get(handle.name)
        job = self._queue.get(handle.id)
        return job if job is not None and (job.name == handle.name or self._was_renamed(handle)) else None

    def _was_renamed(self, handle: Handle) -> bool:
        """True if a queued job of another name runs the handle's script; Slurm is asked once for each job."""
        if handle.id not in self._renamed and handle.script:
            try:
                self.questions += 1
                self._renamed[handle.id] = script_of(handle.id) == handle.script
            except NoAnswer:
                return True  # until it says more
        return self._renamed.get(handle.id, False)

    def _report(self, handle: Handle) -> Report | None:
        """The state of a job in the queue; None if an answer younger than the job does not show it."""
        if self._answered <= self._first_seen[handle]:
            return Report(True)
        job = self._find(handle)
        if job is None:
            unborn = not handle.id and self._answered - self._first_seen[handle] < ABSENT_SECONDS
            return Report(True) if unborn else None
        self._absent.pop(handle, None)
        found = replace(handle, id=job.id)
        if not job.ended:
            waits = (job.reason or "None") if job.state in PENDING else ""
            return Report(True, message=job.state, handle=found, node=job.node, waits=waits)
        return _end(job.state, job.reason, found, job.node)

    def _may_return(self, handle: Handle) -> bool:
        """True if answers of squeue have lacked a job for a short time only: one may be empty by mistake."""
        return self._answered - self._absent.setdefault(handle, self._answered) < ABSENT_SECONDS

    def _ask_accounting_for(self, missing: list[Handle], reports: dict[Handle, Report | None]) -> None:
        """Report jobs that left the queue: from accounting, or without it as lost, once for each answer of squeue."""
        if self._accounted == self._answered:
            return  # they count as running until squeue has answered again
        ids = {handle.id for handle in missing if handle.id}
        known: dict[str, EndedJob] = {}
        if ids and self._account_question is None:
            self.questions += 1
            self._account_question = (ids, Question(partial(sacct, ids)))
        if ids and self._account_question is not None:
            asked, question = self._account_question
            if not question.is_answered(QUICK_SECONDS if time.monotonic() - question.began < 1 else 0.0):
                return  # they count as running until it answers
            self._account_question = None
            missing = [handle for handle in missing if not handle.id or handle.id in asked]
            with suppress(NoAnswer):  # no accounting, or its database is down: the queue must do
                known = question.answer()
        self._accounted = self._answered
        for handle in missing:
            job = known.get(handle.id)
            is_ours = job is not None and (job.name == handle.name or self._renamed.get(handle.id))
            if handle.id and not (is_ours and job is not None and job.state in TERMINAL) and self._may_return(handle):
                reports[handle] = Report(True)
            elif job is None or not is_ours:
                never = "Slurm has no job of that name" if not handle.id else "Slurm no longer knows the job"
                reports[handle] = Report(False, "node_fail" if handle.id else "cancelled", never)
            else:
                reports[handle] = _end(job.state, job.exit_code, handle, str(job.facts.get("node", "")))


def _end(state: str, reason: str, handle: Handle, node: str) -> Report:
    """Report an ended job; accounting may still list one as RUNNING that the queue lost with its node."""
    failure = FAILURES.get(state, "" if state == "COMPLETED" else "node_fail")
    words = f"Slurm says {state}" + (f" ({reason})" if reason not in ("", "None", "0:0") else "")
    return Report(False, failure, words, handle, node)
