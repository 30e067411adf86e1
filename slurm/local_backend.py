"""Jobs as processes of this machine, each in its own session, so that they outlive their controller."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import psutil

from slurm.backend import Backend, Handle, Job, Report


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if allowed is None else [name for name in allowed.split(",") if name.strip()]


def usable_cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Process:
    """A job's process: its id, its creation time, and its exit code (-N: killed by signal N; None: it runs)."""

    pid: int
    created: float
    exit_code: Callable[[], int | None]


def start_process(job: Job, environment: Mapping[str, str]) -> Process:
    """Run a job's command as a process in its own session: Ctrl-C reaches only the controller."""
    with job.log.open("ab") as log:
        child = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    return Process(child.pid, psutil.Process(child.pid).create_time(), child.poll)


class LocalBackend(Backend):
    """Processes of this host. A job gets the GPU with the fewest jobs, if there are GPUs.

    A job's id is `host:pid:start time:GPU`, so that no reused process id and no other host's process matches.

    Args:
        gpus: as in CUDA_VISIBLE_DEVICES.
        start: starts a job's process with all its variables.
    """

    name = "local"
    prompt = True

    def __init__(
        self, gpus: Sequence[str] = (), start: Callable[[Job, Mapping[str, str]], Process] = start_process
    ) -> None:
        self.visible, self.gpus, self._start = list(gpus), 1 if gpus else 0, start
        self._children: dict[str, Process] = {}
        self._on_gpu: dict[str, str] = {}

    def submit(self, job: Job) -> Handle:
        """See `Backend`."""
        environment = {**os.environ, **job.environment}
        gpu = min(self.visible, key=list(self._on_gpu.values()).count, default="")
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        job.log.parent.mkdir(parents=True, exist_ok=True)
        child = self._start(job, environment)
        identifier = f"{socket.gethostname()}:{child.pid}:{child.created:.2f}:{gpu}"
        self._children[identifier] = child
        self._on_gpu[identifier] = gpu
        return Handle(job.name, identifier)

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        """See `Backend`. A process that vanished counts as a lost node, as its exit code is unknown."""
        reports = {handle: self._report(handle.id) for handle in handles if handle.id}
        for handle, report in reports.items():
            if report.alive:  # an earlier controller's job uses its GPU too
                self._on_gpu.setdefault(handle.id, handle.id.rsplit(":", 1)[-1])
            else:
                self._on_gpu.pop(handle.id, None)
        return reports

    def cancel(self, handles: Collection[Handle]) -> None:
        """See `Backend`."""
        for handle in handles:
            process = _find(handle.id) if handle.id else None
            if process is not None:
                process.send_signal(signal.SIGTERM)

    def _report(self, identifier: str) -> Report:
        child = self._children.get(identifier)
        if child is None:
            return Report(True) if _find(identifier) else Report(False, "node_fail", "the process is gone")
        code = child.exit_code()
        if code is None:
            return Report(True)
        if code < 0:
            return Report(False, "node_fail", f"killed by {signal.Signals(-code).name}")
        return Report(False, "error" if code else "", f"exit code {code}")


class DebugBackend(Backend):
    """Run each job immediately in this process, one at a time, for debuggers and print.

    `run` gets the job's arguments and `received`, the list of signals that ask this process to end, and thus the job.
    """

    name = "debug"
    prompt = True
    gpus = 0

    def __init__(self, run: Callable[[list[str], list[int]], int]) -> None:
        self.run = run
        self.received: list[int] = []
        self._codes: dict[str, int] = {}

    def submit(self, job: Job) -> Handle:
        """See `Backend`. Return when the job has ended; its arguments follow `python -m module`."""
        identifier = f"debug:{os.getpid()}:{len(self._codes)}"
        self._codes[identifier] = self.run(list(job.command[3:]), self.received)
        return Handle(job.name, identifier)

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        """See `Backend`."""
        return {h: Report(False, "error" if self._codes.get(h.id, 1) else "") for h in handles if h.id}

    def cancel(self, handles: Collection[Handle]) -> None:
        """Do nothing: no job runs between calls."""


def host_of(identifier: str) -> str:
    """The host of a local job, from its id."""
    return identifier.rsplit(":", 3)[0]


def _find(identifier: str) -> psutil.Process | None:
    """The living process of an id; None if it has ended or belongs to another host."""
    host, pid, started, _ = identifier.rsplit(":", 3)
    return living_process(int(pid), float(started)) if host == socket.gethostname() else None


def living_process(pid: int, created: float) -> psutil.Process | None:
    """The process of that id and creation time; None if it has ended."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < 0.02 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None
