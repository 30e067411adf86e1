"""Jobs as plain processes of this machine, each in a session of its own: they outlive their controller."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import psutil

from slurm.backend import Handle, Job, Report


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them; empty where there are none."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if allowed is None else [name for name in allowed.split(",") if name.strip()]


def usable_cores() -> int:
    """The processor cores that this process may run on."""
    return len(os.sched_getaffinity(0))


class LocalBackend:
    """Processes of this host; GPUs, where there are any, go to the job that finds them least used.

    A job's id is `host:pid:start time:GPU`, so that neither a reused process id nor another host deceives.
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
        gpu = self._least_used_gpu()
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches the controller alone, which then asks its jobs to end.
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
        """See `Backend`. A process that ended without a word counts as a lost node: nobody knows what happened."""
        reports = {handle: self._report(handle.id) for handle in handles if handle.id}
        for handle, report in reports.items():
            self._on_gpu.pop(handle.id, None) if not report.alive else self._remember(handle.id)
        return reports

    def usage(self, handles: Collection[Handle], *, at_once: bool = False) -> dict[Handle, Mapping[str, Any]]:
        """See `Backend`: nobody keeps accounts here."""
        return {}

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

    def _remember(self, identifier: str) -> None:
        """A job of an earlier controller occupies its GPU too."""
        self._on_gpu.setdefault(identifier, identifier.rsplit(":", 1)[-1])

    def _least_used_gpu(self) -> str:
        if not self.visible:
            return ""
        used = list(self._on_gpu.values())
        return min(self.visible, key=used.count)


class DebugBackend:
    """Runs each job in this process, at once, so that a debugger and print see it; one at a time."""

    name = "debug"
    prompt = True
    gpus = 0

    def __init__(self, run: Callable[[list[str]], int]) -> None:
        self.run = run
        self._codes: dict[str, int] = {}

    def submit(self, job: Job) -> str:
        """See `Backend`; returns when the job has ended. `run` gets what follows `python -m module`."""
        identifier = f"debug:{os.getpid()}:{len(self._codes)}"
        self._codes[identifier] = self.run(list(job.command[3:]))
        return identifier

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        """See `Backend`."""
        return {h: Report(False, "error" if self._codes.get(h.id, 1) else "") for h in handles if h.id}

    def usage(self, handles: Collection[Handle], *, at_once: bool = False) -> dict[Handle, Mapping[str, Any]]:
        """See `Backend`: nobody keeps accounts here."""
        return {}

    def cancel(self, handles: Collection[Handle]) -> None:
        """Nothing runs while anybody could ask."""


def host_of(identifier: str) -> str:
    """The host that a local job runs on, by its id."""
    return identifier.rsplit(":", 3)[0]


def _find(identifier: str) -> psutil.Process | None:
    """The living process of an id, None if it is gone (or was another host's)."""
    host, pid, started, _ = identifier.rsplit(":", 3)
    if host != socket.gethostname():
        return None
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(started)) < 0.02 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None
