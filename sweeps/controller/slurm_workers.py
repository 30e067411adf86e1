"""Run trials in a few Slurm jobs that each work through many of them (`mmkd.worker`), several at once."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from mmkd.failures import Failure
from mmkd.files import write_text
from mmkd.records import AssignmentRecord, ProcessRecord, WorkerRecord, assign, find_record
from mmkd.rundir import Root, WorkerDir
from slurm.accounting import NoAnswer, QueuedJob, scancel
from slurm.backend import Handle, Job, Report, SubmissionDelayed, SubmissionRefused
from slurm.monitoring.workers import worker_records
from slurm.settings import SlurmSettings
from slurm.slurm_backend import ABSENT_SECONDS, SlurmBackend
from sweeps.controller.bad_nodes import BadNodes
from sweeps.controller.job_names import worker_job
from sweeps.controller.last_words import last_words
from sweeps.controller.local_worker import ONE_THREAD

LOOK_SECONDS = 0.2
"""Between two looks at the workers' directories for new and closed ones."""
CODES_SECONDS = 2.0
"""Between two looks for exit codes: only of a killed trial they say more than its own record."""
DELAY_SECONDS = 30.0
"""Until a delayed submission of workers is tried again."""
SILENT_SECONDS = 300.0
"""A worker that has not counted up for so long is cancelled; it may read a large data set for minutes."""


@dataclass
class Worker:
    """A worker that has started.

    Args:
        job: its job's id.
        directory: its directory.
        slots: trials at once.
        node: where it runs.
        beat: the last count that it wrote, which was first seen at the monotonic time `heard`.
        closed: True if it begins nothing more.
        taken: slots of its trials, by assignment.
    """

    job: str
    directory: WorkerDir
    slots: int
    node: str
    beat: int
    heard: float
    closed: bool = False
    taken: dict[str, int] = field(default_factory=dict)

    @property
    def free(self) -> int:
        """Slots without a trial."""
        return self.slots - sum(self.taken.values())


class WorkerBackend(SlurmBackend):
    """Jobs of a Slurm cluster that fork trials, each at most `settings.trials_per_worker` at once.

    As many workers are submitted as the remaining trials need, at most `settings.workers`. One that ends is replaced.
    A trial that ran out of memory gets more slots of a worker, that is fewer neighbours, and then a job to itself.

    Args:
        settings: resources and setup of each worker.
        root: the root directory.
        study: the study's name.
        environment: variables of each worker.
    """

    round_seconds = 0.02  # a free slot waits for the controller

    def __init__(self, settings: SlurmSettings, root: Root, study: str, environment: Mapping[str, str]) -> None:
        super().__init__(settings)
        self.root, self.study, self.name_of_workers = root, study, worker_job(root, study)
        self.environment = {**environment, **ONE_THREAD}
        self._workers: dict[str, Worker] = {}
        self._submitted: dict[str, float] = {}
        """Ids of submitted workers that the queue has not shown yet."""
        self._looked = self._coded = self._again = 0.0
        self._failed: set[str] = set()
        self._has_tidied = False
        self.nodes = BadNodes("workers end before they start")
        self._avoided: dict[str, tuple[str, ...]] = {}
        """Nodes that a worker was to avoid, by job id."""
        self._notes: list[str] = []
        self._records = worker_records(root, study)
        """Of all workers of the study, past ones included, by job id."""

    def worker_script(self) -> str:
        """The sbatch script of the workers."""
        return self.script(self.worker_job())

    def worker_job(self) -> Job:
        """The array of all workers."""
        return self._job(self.settings.workers)

    def gpus_for(self, job: Job) -> float:
        """See `Backend`: a job's GPUs are divided by its slots."""
        slots = self.settings.trials_per_worker
        return self.gpus * min(math.ceil(job.memory), slots) / slots

    def idle_gpu_seconds(self) -> float:
        """See `Backend`: free slots of running and ended workers."""
        return sum(record.idle_gpu_seconds for record in self._records.values())

    def slots(self, wanted: Callable[[], int]) -> int:
        """See `Backend`. Submits workers if there are too few for what is wanted.

        Raises:
            SubmissionDelayed: there is no worker, and none can be submitted now.
            SubmissionRefused: Slurm refuses workers, or they end before they start.
        """
        self._look()
        self._refuse_failures()
        here = len([worker for worker in self._workers.values() if not worker.closed])
        coming = len(self._queued()) + len(self._submitted) - len(self._workers)
        missing = self.settings.workers - here - coming
        if missing > 0 and self._answered and time.monotonic() > self._again:
            needed = math.ceil(wanted() / self.settings.trials_per_worker) - here - coming
            try:
                self._submit_workers(min(missing, needed))
            except SubmissionDelayed:
                self._again = time.monotonic() + DELAY_SECONDS
                if not here:
                    raise
        return sum(worker.slots for worker in self._workers.values() if not worker.closed)

    def submit(self, job: Job) -> Handle:
        """See `Backend`: assign it to the worker with most free slots."""
        slots = math.ceil(job.memory)
        if slots > self.settings.trials_per_worker:
            return super().submit(replace(job, memory=job.memory / self.settings.trials_per_worker))
        able = [worker for worker in self._workers.values() if not worker.closed and worker.free >= slots]
        fitting = [worker for worker in able if worker.node not in job.avoid] or able
        if not fitting:
            raise SubmissionDelayed(f"no worker has {slots} free slots", certain=True)
        worker = max(fitting, key=lambda worker: worker.free)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        facts = {"arguments": job.command[3:], "log": str(job.log), "environment": job.environment, "slots": slots}
        try:
            assign(worker.directory, job.name, AssignmentRecord.model_validate(facts))
        except FileNotFoundError:
            raise SubmissionDelayed(f"worker {worker.job} is gone", certain=True) from None
        worker.taken[job.name] = slots
        return Handle(self.name_of_workers, worker.job, job.name)

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        """See `Backend`. A trial in a worker lives for as long as the worker, or until its process has ended."""
        self._look()
        found = {handle: handle if handle.id else self._find_assignment(handle) for handle in handles}
        for worker in self._workers.values():
            worker.taken = {h.worker: worker.taken.get(h.worker, 1) for h in found.values() if h.id == worker.job}
        reports = super().poll(set(found.values()))
        may_look = time.monotonic() - self._coded > CODES_SECONDS
        if may_look:
            self._coded = time.monotonic()
        answers = {}
        for handle, known in found.items():
            report = reports[known]
            if known.worker and report.alive:
                ended = self._end(known) if may_look else None
                report = replace(ended or report, handle=known)
            answers[handle] = report
        return answers

    def cancel(self, handles: Collection[Handle]) -> None:
        """See `Backend`: cancels the workers, with all their trials."""
        super().cancel(handles)
        self._end_workers(at_once=True)

    def release(self) -> None:
        """See `Backend`."""
        self._ask()
        self._end_workers(at_once=False)

    def _end_workers(self, *, at_once: bool) -> None:
        """End all workers of the study; if not `at_once`, those that have started end by themselves."""
        jobs = {*self._queued(), *self._submitted}
        for job in jobs & self._workers.keys() if not at_once else ():
            with suppress(OSError):  # then it ends by itself after a while
                write_text(self._workers[job].directory.close, "the study needs no more trials\n")
            jobs.remove(job)
        with suppress(NoAnswer):  # the same
            scancel(jobs)

    def _job(self, copies: int) -> Job:
        options = ("--slots", str(self.settings.trials_per_worker), "--idle", f"{self.settings.worker_idle:g}")
        command = (sys.executable, "-m", "mmkd.worker", str(self.root.workers), *options, "--for", self.study)
        log = self.root.worker_script(self.study).with_suffix(".log")
        return Job(self.name_of_workers, command, log, self.environment, copies=copies)

    def _submit_workers(self, count: int) -> None:
        if count <= 0:
            return
        self.root.workers.mkdir(exist_ok=True)
        avoid = self.nodes.failing
        array = super().submit(replace(self._job(count), avoid=avoid)).id
        workers = [f"{array}_{number}" for number in range(count)]
        self._submitted |= dict.fromkeys(workers, time.monotonic())
        self._avoided |= dict.fromkeys(workers, avoid)

    def _queued(self) -> dict[str, QueuedJob]:
        """Workers that wait or run, by job id."""
        return {j.id: j for j in self._queue.values() if j.name == self.name_of_workers and not j.ended}

    def _look(self) -> None:
        """Find new workers, and forget ended ones; cancel those that do not count up."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if not self._answered or now - self._asked >= self.settings.poll:
            self._ask()
        queued = self._queued()
        shown = {job.id for job in self._queue.values()}
        for job in [j for j, at in self._submitted.items() if j in shown or self._answered > at + ABSENT_SECONDS]:
            del self._submitted[job]
        for job in {*queued, *self._submitted}:
            directory = self.root.worker(job)
            record = find_record(directory.record, WorkerRecord)
            if record is not None:
                self._records[job] = record
                new = Worker(job, directory, record.slots, record.node, record.beat, now)
                if job not in self._workers:
                    self.nodes.start(record.node)
                worker = self._workers.setdefault(job, new)
                worker.closed = directory.closed.exists()
                if record.beat != worker.beat:
                    worker.beat, worker.heard = record.beat, now
        for job in self._workers.keys() - queued.keys() - self._submitted.keys():
            self._workers.pop(job).directory.tidy()
        if self._answered and not self._has_tidied:  # of workers that died while no controller watched
            for job in self._records.keys() - queued.keys() - self._submitted.keys():
                self.root.worker(job).tidy()
            self._has_tidied = True
        if silent := {worker.job for worker in self._workers.values() if now - worker.heard > SILENT_SECONDS}:
            with suppress(NoAnswer):
                scancel(silent)

    def _refuse_failures(self) -> None:
        """Note the nodes on which workers end before they start.

        Raises:
            SubmissionRefused: no node is left.
        """
        ended = [j for j in self._queue.values() if j.name == self.name_of_workers and j.state == "FAILED"]
        for job in ended:
            if job.id in self._failed or self.root.worker(job.id).record.exists():
                continue
            self._failed.add(job.id)
            log = self.root.workers / f"{self.study}.{job.id}.log"
            avoided, words = self._avoided.get(job.id, ()), f"{log}: {last_words(log, 1)}"
            said = self.nodes.fail(job.node, avoided, words, others_run=bool(self._workers))
            self._notes += [said] if said else []
        if self.nodes.hopeless:
            raise SubmissionRefused(self.nodes.hopeless)

    def take_notes(self) -> list[str]:
        """See `Backend`."""
        notes, self._notes = self._notes, []
        return notes

    def _find_assignment(self, handle: Handle) -> Handle:
        """The handle of a job whose submitter died before it recorded the worker."""
        for worker in self._workers.values():
            directory = worker.directory
            if directory.assignment(handle.name).exists() or directory.process(handle.name).exists():
                return Handle(self.name_of_workers, worker.job, handle.name)
        return handle

    def _end(self, handle: Handle) -> Report | None:
        """Report the end of a trial's process; None if it runs, or waits in the inbox of a worker that may begin it."""
        directory = self.root.worker(handle.id)
        process = find_record(directory.process(handle.worker), ProcessRecord)
        node = self._workers[handle.id].node if handle.id in self._workers else ""
        if process is None:
            assigned = directory.assignment(handle.worker)
            if directory.closed.exists() and assigned.exists():
                with suppress(FileNotFoundError):
                    assigned.unlink()
                    return Report(False, Failure.CANCELLED, "the worker had ended before it began", node=node)
            return None
        if process.code is None:
            return None
        if process.failure:
            return Report(False, process.failure, "killed for lack of memory", node=node)
        if process.code < 0:
            return Report(False, Failure.NODE_FAIL, f"killed by signal {-process.code}", node=node)
        return Report(False, Failure.ERROR if process.code else "", f"exit code {process.code}", node=node)
