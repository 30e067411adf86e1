"""Start local trials as forks of one warm worker (`mmkd.worker`), which has imported torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from mmkd.records import AssignmentRecord, ProcessRecord, assign, find_record
from mmkd.rundir import WorkerDir
from slurm.backend import Job
from slurm.local_backend import Process, living_process, start_process
from sweeps.controller.last_words import last_words

TRIAL = (sys.executable, "-m", "mmkd.trial")
"""The command that a worker runs without starting Python again."""
WORKER = (sys.executable, "-m", "mmkd.worker")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Variables of a worker, which must have no threads; its trials set the number that they need."""
LOOK_SECONDS = 0.002
STOPPED_SECONDS = 5.0
"""A worker that has been stopped (SIGSTOP) for so long is replaced."""


class LocalWorker:
    """Start jobs through a worker, which is started when it is needed; other commands than trials as processes.

    It replaces a worker that was killed, or that retired because mmkd's code has changed. If a new worker does not
    start the job either, the job is a process, whose log shows why. Workers end with this object.
    """

    def __init__(self) -> None:
        self._worker: tuple[WorkerDir, subprocess.Popen[bytes]] | None = None

    def __call__(self, job: Job, environment: Mapping[str, str]) -> Process:
        """See `slurm.local_backend.start_process`."""
        if job.command[:3] != TRIAL:
            return start_process(job, environment)
        assignment = AssignmentRecord(arguments=job.command[3:], log=str(job.log), environment=environment)
        for worker in (self._worker, None):
            self._worker = worker or _start_worker(environment)
            started = _assign(*self._worker, job.name, assignment)
            if started is not None:
                return started
            _report_death(*self._worker)
        self._worker = None
        return start_process(job, environment)


def _report_death(worker: WorkerDir, process: subprocess.Popen[bytes]) -> None:
    """Print the last words of a worker that ended by itself."""
    if process.poll() not in (None, 0):
        said = f"exit code {process.returncode}: {last_words(worker.log, 1)}"
        print(f"warning: the process that starts trials has ended ({said}); another one starts", file=sys.stderr)


def _start_worker(environment: Mapping[str, str]) -> tuple[WorkerDir, subprocess.Popen[bytes]]:
    worker = WorkerDir(Path(tempfile.mkdtemp(prefix="mmkd-worker-")))
    worker.inbox.mkdir()
    worker.process("").parent.mkdir()
    with worker.log.open("ab") as log:
        process = subprocess.Popen(
            (*WORKER, str(worker.path)),
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**environment, **ONE_THREAD},
            start_new_session=True,
        )
    return worker, process


def _assign(
    worker: WorkerDir, process: subprocess.Popen[bytes], name: str, assignment: AssignmentRecord
) -> Process | None:
    """Assign a job and wait until its process runs; None if the worker begins nothing more."""
    record, inbox = worker.process(name), worker.assignment(name)
    try:
        assign(worker, name, assignment)
        assert process.stdin is not None
        os.write(process.stdin.fileno(), b"\n")  # wakes it
    except (FileNotFoundError, BrokenPipeError):
        return None  # it has ended
    moving = time.monotonic()
    while (found := find_record(record, ProcessRecord)) is None:
        if process.poll() is not None or (worker.closed.exists() and inbox.exists()):
            inbox.unlink(missing_ok=True)
            return None
        moving = moving if _is_stopped(process) else time.monotonic()
        if time.monotonic() - moving > STOPPED_SECONDS:
            process.kill()  # its trials live on
            process.wait()
        time.sleep(LOOK_SECONDS)

    return Process(found.pid, found.started, _ExitCode(record, found))


class _ExitCode:
    """The exit code of a worker's trial; None while it runs.

    A worker that is gone or stopped writes no code: a trial that ended without it counts as killed (its own record
    says how it ended).
    """

    def __init__(self, record: Path, process: ProcessRecord) -> None:
        self.record, self.process = record, process
        self._seen = time.monotonic()

    def __call__(self) -> int | None:
        known = find_record(self.record, ProcessRecord)
        if known is not None and known.code is not None:
            return known.code
        if living_process(self.process.pid, self.process.started):
            self._seen = time.monotonic()
        return None if time.monotonic() - self._seen < STOPPED_SECONDS else -signal.SIGKILL


def _is_stopped(process: subprocess.Popen[bytes]) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    return False
