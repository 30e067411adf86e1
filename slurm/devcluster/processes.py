"""Start, find and end the processes of one cluster.

There are no pid files, which could go stale: a process is a daemon of a cluster if it runs the daemon's exact command
with SLURM_CONF in the cluster's directory. So no other Slurm on the machine is ever touched.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from slurm.devcluster.packages import PATH

DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd")
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Daemon:
    """A daemon of the cluster in `directory`; its children inherit `working`, its working directory."""

    name: str
    command: tuple[str, ...]
    directory: Path
    working: Path

    @property
    def log(self) -> Path:
        """Its standard output and error."""
        return self.directory / "log" / f"{self.name}.log"


def find_daemon(daemon: Daemon) -> psutil.Process | None:
    """The living process of `daemon`; the oldest, because a daemon forks before it executes."""
    found = [p for p in _ours(daemon.directory) if _command(p) == list(daemon.command)]
    return min(found, key=psutil.Process.create_time, default=None)


def daemon_processes(directory: Path) -> list[psutil.Process]:
    """All daemons of the cluster in `directory`, started with whatever options."""
    return [p for p in _ours(directory) if _command(p)[:1] in ([name] for name in DAEMONS)]


def start_daemon(daemon: Daemon) -> None:
    """Start `daemon` in its own session and not as our child: it outlives us and leaves no zombie."""
    # The shell ends at once, so the daemon is not our child; the shell prints its process id.
    shell = subprocess.run(
        ["sh", "-c", 'log=$1; shift; "$@" >>"$log" 2>&1 & echo $!', "sh", daemon.log, *daemon.command],
        cwd=daemon.working,
        env={**environment(daemon.directory), "PATH": PATH},  # none of our variables, as we may be a job
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=True,
    )
    while find_daemon(daemon) is None and _is_alive(int(shell.stdout)):
        time.sleep(0.02)


def environment(directory: Path) -> dict[str, str]:
    """Variables by which Slurm's commands and daemons find the cluster in `directory`."""
    return {"SLURM_CONF": str(directory / "slurm.conf")}


def step_daemons(directory: Path, node: str | None = None) -> list[psutil.Process]:
    """The slurmstepd processes of one node or all, one per job step."""
    spool = directory / "spool"
    # Their title overwrites command and environment, but they share their slurmd's working directory.
    spools = {str(spool / node)} if node else {str(path) for path in spool.glob("n*")}
    everything = psutil.process_iter(["name", "cwd"])
    return [p for p in everything if p.info["name"].startswith("slurmstepd") and p.info["cwd"] in spools]


def job_processes(directory: Path, node: str | None = None) -> list[psutil.Process]:
    """Processes of jobs on one node or all: children of slurmstepd, and those that left it with their environment."""
    found: set[psutil.Process] = set()
    for step in step_daemons(directory, node):
        with suppress(psutil.NoSuchProcess):
            found.update(step.children(recursive=True))
    for process in _ours(directory):
        variables = _variables(process)
        if "SLURM_JOB_ID" in variables and node in (None, variables.get("SLURMD_NODENAME")):
            found.add(process)
    return list(found - {psutil.Process(), *psutil.Process().parents()})


def end(processes: Iterable[psutil.Process], kind: signal.Signals = signal.SIGTERM) -> None:
    """Send `kind`, wait, and kill what is still alive."""
    alive = list(processes)
    for step in (kind, signal.SIGKILL):
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(step)
        deadline = time.monotonic() + STOP_SECONDS
        while (alive := [p for p in alive if _lives(p)]) and time.monotonic() < deadline:
            time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return _lives(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _lives(process: psutil.Process) -> bool:
    """True if it still runs. A zombie does not, even where init is slow to reap it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def tail(log: Path, lines: int = 10) -> str:
    """The last lines of a log, for an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"


def _ours(directory: Path) -> Iterator[psutil.Process]:
    """Living processes whose environment names the cluster in `directory`."""
    wanted = environment(directory)["SLURM_CONF"]
    for process in psutil.process_iter():
        if _variables(process).get("SLURM_CONF") == wanted:
            yield process


def _variables(process: psutil.Process) -> dict[str, str]:
    """A process's environment; empty if it has ended, is a zombie, or may not be read."""
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _command(process: psutil.Process) -> list[str]:
    """A process's command line; empty if `_variables` is."""
    try:
        return process.cmdline()
    except (psutil.Error, OSError):
        return []
