"""Jobs as processes of this machine, each in its own session, so that they outlive their controller."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Collection, Sequence

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


class LocalBackend(Backend):
    """Processes of this host. A job gets the GPU with the fewest jobs, if there are GPUs.

    A job's id is `host:pid:start time:GPU`, so that no reused process id and no other host's process matches.
    """

    name = "local"
    prompt = True

    def __init__(self, gpus: Sequence[str] = ()) -> None:
        self.visible, self.gpus = list(gpus), 1 if gpus else 0
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._on_gpu: dict[str, str] = {}

    def submit(self, job: Job) -> str:
        """See `Backend`."""
        environment = {**os.environ, **job.environment}
        gpu = min(self.visible, key=list(self._on_gpu.values()).count, default="")
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            # Its own session: Ctrl-C reaches only the controller, which then asks its jobs to end.
            child = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        started = psutil.Process(child.pid).create_time()
        identifier = f"{socket.gethostname()}:{child.pid}:{started:.2f}:{gpu}"
        self._children[identifier] = child
        self._on_gpu[identifier] = gpu
        return identifier

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
        code = child.poll()
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

    def submit(self, job: Job) -> str:
        """See `Backend`. Return when the job has ended; its arguments follow `python -m module`."""
        identifier = f"debug:{os.getpid()}:{len(self._codes)}"
        self._codes[identifier] = self.run(list(job.command[3:]), self.received)
        return identifier

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
    if host != socket.gethostname():
        return None
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(started)) < 0.02 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None
