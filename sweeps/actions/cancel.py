"""Implement --cancel: end all jobs of a study, through its controller or in place of a dead one."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from mmkd.attempts import last_attempt
from mmkd.config import from_json
from mmkd.errors import UserError
from mmkd.files import read_json, write_text
from mmkd.formatting import count
from mmkd.lock import STALE_SECONDS, FileLock, LockHeld, read_holder
from mmkd.rundir import RowDir, TrialDir
from slurm.accounting import NoAnswer, QueuedJob, scancel, squeue
from slurm.local_backend import host_of
from sweeps.actions.detach import controller_jobs
from sweeps.controller.job_names import worker_job
from sweeps.controller.jobs import Jobs
from sweeps.controller.row_locks import RowLocks, take_rows
from sweeps.controller.tasks import Task
from sweeps.launched_study import RecordedStudy, without_end
from sweeps.resolve import past_backend, refuse_without_slurm
from sweeps.site_file import Site

PATIENCE = STALE_SECONDS + 20.0
"""Seconds for controllers and jobs to end: a checkpoint, then Slurm's KillWait for a job that does not react. Also for
seeing that a controller on another host is dead."""
POLL = 5.0
"""Seconds between queries to Slurm while waiting; short, because the wait lasts two minutes at most."""


def cancel(study: RecordedStudy, site: Site, *, patience: float = PATIENCE) -> int:
    """End the study's jobs and its controller. Return the exit code: 1 if a job did not end in time.

    Raises:
        UserError: another study's controller holds all its rows, or this machine has no Slurm.
        ConnectionError: Slurm does not answer.
    """
    try:
        with _without_controller(study, patience) as locks:
            waiting = controller_jobs(study.root, study.name)
            scancel([job.id for job in waiting])
            if waiting:
                print(f"cancelled its detached controller: job {', '.join(job.id for job in waiting)}")
            scancel([job.id for job in workers_of(study)])  # their trials write checkpoints
            left = _end_jobs(study, site, locks, patience)
    except NoAnswer as error:
        refuse_without_slurm("--cancel", error)
    if left:
        return 1
    print("nothing is running any more; run the launch command again to resume")
    return 0


def workers_of(study: RecordedStudy) -> list[QueuedJob]:
    """The study's workers that wait or run."""
    if not study.root.workers.exists():
        return []
    return [job for job in squeue() if job.name == worker_job(study.root, study.name) and not job.ended]


@contextmanager
def _without_controller(study: RecordedStudy, patience: float) -> Iterator[RowLocks]:
    """Hold the locks of the study's rows after its controllers have ended.

    A controller holds all rows that it was launched with: all of the study, or those of --rows. A row that the study's
    controller does not hold may be held for another study, and is skipped.
    """
    stop = study.root.stop(study.name)
    deadline = time.monotonic() + patience
    asked = False
    known: dict[RowDir, FileLock] = {}
    while True:
        with take_rows(study.row_directories(), known=known) as locks:
            ours = [row for row in locks.refused if _works_for(study, row)]
            if not ours and (locks.held or not locks.refused):
                stop.unlink(missing_ok=True)
                for row, holder in locks.refused.items():
                    print(f"row {row.path.name} skipped: {holder}, for another study")
                yield locks
                return
            holder = locks.refused[ours[0]] if ours else next(iter(locks.refused.values()))
        if not asked:
            print(f"waiting up to {patience:.0f} s for its controller to end with its jobs: {holder}", flush=True)
            asked = True
        if time.monotonic() > deadline:
            stop.unlink(missing_ok=True)
            raise UserError(
                f"{holder} did not end in {patience:.0f} s: it may run another study with the same rows (cancel that "
                f"one) or be busy (try again)"
            )
        if not stop.exists():
            write_text(stop, f"launch.py --cancel on {socket.gethostname()}\n")
        time.sleep(min(1.0, patience / 10))


def _works_for(study: RecordedStudy, row: RowDir) -> bool:
    """True if the row's lock is held for this study."""
    holder = read_holder(row.lock)
    return holder is not None and holder.purpose == study.name


def _end_jobs(study: RecordedStudy, site: Site, locks: RowLocks, patience: float) -> int:
    """End jobs without a controller. Return the number of attempts left."""
    with ExitStack() as claims:
        runs = [run for row in study.rows if row.directory in locks.held for run in row.runs()]
        teachers = [teacher for teacher in study.teachers() if _claim(teacher, claims)]
        reachable, left = [], 0
        for directory in without_end([*runs, *teachers]):
            attempt = last_attempt(directory)
            backend, host = attempt.submitted.backend, host_of(attempt.submitted.job)
            if backend == "debug":
                continue  # it ran in its controller's process and ended with it
            if backend == "local" and host not in ("", socket.gethostname()):
                print(f"{directory.name} runs on {host}, which this machine cannot reach: run --cancel there")
                left += 1
            else:
                reachable.append(directory)
        groups = _by_backend(study, site, reachable)
        return left + _wait(groups, locks.renew, patience)


def _claim(teacher: TrialDir, claims: ExitStack) -> bool:
    """True if no other controller trains this teacher; then none will until `claims` are released."""
    if not teacher.path.is_dir():
        return False
    try:
        claims.enter_context(FileLock(teacher.claim))
    except LockHeld as held:
        print(f"teacher {teacher.path.name} skipped: {held}, for another study")
        return False
    return True


def _by_backend(study: RecordedStudy, site: Site, directories: list[TrialDir]) -> list[Jobs]:
    """Watch the jobs of these trials through the backends they were submitted to."""
    found: dict[str, Jobs] = {}
    for directory in directories:
        name = last_attempt(directory).submitted.backend
        if name not in found:
            found[name] = Jobs(study.root, past_backend(name, site, poll=POLL), {})
        config = from_json(read_json(directory.config), directory.config)
        found[name].attach(Task(directory.name, directory.name, "", directory, config), None)
    return list(found.values())


def _wait(groups: list[Jobs], renew: Callable[[], None], patience: float) -> int:
    """Ask the jobs to end and record each end. Return the number that did not end in time."""
    running = sum(len(jobs.running) for jobs in groups)
    if running:
        print(f"ending {count(running, 'job')} without a controller, with checkpoints", flush=True)
    for jobs in groups:
        jobs.cancel()
    deadline, renewed = time.monotonic() + patience, time.monotonic()
    while any(jobs.running for jobs in groups) and time.monotonic() < deadline:
        for ended in (ended for jobs in groups for ended in jobs.collect(ending=True)):
            print(f"{ended.running.task.label}: {ended.end}", flush=True)
        if time.monotonic() - renewed > 30:
            renew()
            renewed = time.monotonic()
        time.sleep(0.2)
    left = [running.task.label for jobs in groups for running in jobs.running.values()]
    for label in left:
        print(f"{label}: has not ended after {patience:.0f} s; run --cancel again to check")
    for jobs in groups:
        jobs.close_accounts()
    return len(left)
