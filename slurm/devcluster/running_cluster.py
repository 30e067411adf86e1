"""Control a cluster: start and stop its daemons, and inject faults for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from slurm.devcluster.configuration import remove_memory_cgroup
from slurm.devcluster.options import ClusterError, Options, directory_lock
from slurm.devcluster.packages import PATH
from slurm.devcluster.processes import (
    Daemon,
    daemon_processes,
    end,
    environment,
    find_daemon,
    job_processes,
    start_daemon,
    step_daemons,
    tail,
)

READY_SECONDS = 90.0
USABLE = {"idle", "mixed", "allocated", "completing", "planned"}
"""States of a node that takes jobs now or soon; `*` is appended if the node does not answer."""


class DevCluster:
    """A cluster in a directory. Its only state is the directory and its processes, so several objects may share one.

    Get one from `up` or `attach`. Methods that wait may raise ClusterError with the last lines of a log.
    """

    def __init__(self, directory: Path, options: Options, ports: Mapping[str, int]) -> None:
        self.directory = directory
        self.options = options
        self.ports = ports
        self.daemons = {daemon.name: daemon for daemon in _daemons(directory, options, ports)}

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which Slurm's commands find this cluster."""
        return environment(self.directory)

    def run(self, *command: str, timeout: float = 60) -> str:
        """The standard output of one of Slurm's commands; `timeout` in seconds.

        Raises:
            ClusterError: it failed; the message is its output.
        """
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **self.environment, "PATH": PATH},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise ClusterError(f"{' '.join(command)}: no answer within {timeout:.0f} s") from None
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def nodes(self) -> dict[str, str]:
        """The state of each node in Slurm's words, with `*` if it does not answer."""
        return dict(line.split() for line in sorted(set(self.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines())))

    def running_daemons(self) -> dict[str, psutil.Process]:
        """Living daemons, in the order of their start."""
        found = {name: find_daemon(daemon) for name, daemon in self.daemons.items()}
        return {name: process for name, process in found.items() if process is not None}

    def start_all(self) -> None:
        """Start missing daemons in order, until all nodes take jobs and accounting answers.

        Sets the submit limit to that of the options.
        """
        for name in self.daemons:
            self._start(name)
        self._wait_for("usable nodes", lambda: self._are_usable(self.options.node_names), "slurmctld")
        if self.options.accounting:
            self.set_max_submit(self.options.max_submit)
            self._wait_for("sacct", lambda: bool(self.run("sacct", "-X")), "slurmdbd")

    def restore(self) -> None:
        """Return to the state after `up`: no jobs, all daemons running, all nodes idle, limits as in the options."""
        self.start_all()
        self.cancel_all()
        self.set_grace(self.options.grace)
        self._wait_for("idle nodes", lambda: set(self.nodes().values()) == {"idle"}, "slurmctld")

    def cancel_all(self) -> None:
        """Cancel every job, kill its processes without grace, and wait until the queue is empty."""
        self.run("scancel", "--user", str(os.getuid()))
        end(job_processes(self.directory), signal.SIGKILL)
        self._wait_for("an empty queue", lambda: not self.run("squeue", "-h"), "slurmctld")

    def set_grace(self, seconds: int) -> None:
        """Set the GraceTime of the preempted partition."""
        self.run("scontrol", "update", "PartitionName=gpu", f"GraceTime={seconds}")

    def set_max_submit(self, jobs: int | None) -> None:
        """Limit a user's jobs in the queue; None removes the limit."""
        self._sacctmgr("modify", "qos", "normal", "set", f"MaxSubmitJobsPerUser={-1 if jobs is None else jobs}")

    def resume_nodes(self) -> None:
        """Resume nodes that are drained or down; those without a slurmd go down again."""
        for node, state in self.nodes().items():
            if state.rstrip("*") in USABLE:
                continue
            try:
                self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
            except ClusterError as error:
                # A node that has not registered yet cannot be resumed and need not be.
                if "Invalid node state" not in str(error):
                    raise

    def kill_slurmd(self, node: str, *, steps: bool = False) -> None:
        """kill -9 a node's slurmd. Its jobs continue, unless `steps` are killed too, as in a power failure.

        Slurm notices after about 30 s (SlurmdTimeout is 15 s): the node is down, its jobs are NODE_FAIL.
        """
        self._end(node, signal.SIGKILL)
        if steps:
            end([*step_daemons(self.directory, node), *job_processes(self.directory, node)], signal.SIGKILL)

    def lose_node(self, node: str) -> None:
        """Simulate a power failure known to Slurm at once: jobs are NODE_FAIL. `start` restores the node."""
        self.kill_slurmd(node, steps=True)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def start(self, name: str) -> None:
        """Start a daemon (slurmctld, slurmdbd, or a node's slurmd by the node's name); wait until it can be used."""
        self._start(name)
        if name in self.options.node_names:
            self._wait_for(f"a usable {name}", lambda: self._are_usable([name]), name)

    def stop(self, name: str) -> None:
        """Stop a daemon. Without slurmctld, Slurm's commands fail after 9 s; without slurmdbd, sacct fails at once."""
        self._end(name)

    def down(self) -> None:
        """Cancel all jobs and end all processes of the cluster; keep its files."""
        with directory_lock(self.directory):
            self.shut_down()

    def shut_down(self) -> None:
        """`down`, for a caller that holds the directory's lock."""
        if find_daemon(self.daemons["slurmctld"]) is not None:
            try:
                self.cancel_all()
            except ClusterError as error:
                print(f"devcluster: killing jobs, as cancelling failed: {error}", file=sys.stderr)
        for name in ("slurmctld", *self.options.node_names):
            self._end(name)
        end([*step_daemons(self.directory), *job_processes(self.directory)], signal.SIGKILL)
        for name in reversed(self.daemons):
            self._end(name)
        end(daemon_processes(self.directory))
        remove_memory_cgroup(self.directory)

    def _start(self, name: str) -> None:
        daemon = self.daemons[name]
        if find_daemon(daemon) is None:
            start_daemon(daemon)
        is_ready: dict[str, Callable[[], bool]] = {
            "munged": (self.directory / "munge.socket").is_socket,
            "slurmdbd": self._is_registered,
            "slurmctld": lambda: "is UP" in self.run("scontrol", "ping"),
        }
        self._wait_for(name, is_ready.get(name, lambda: _listens(self.ports[name])), name)

    def _end(self, name: str, kind: signal.Signals = signal.SIGTERM) -> None:
        while (process := find_daemon(self.daemons[name])) is not None:
            end([process], kind)

    def _is_registered(self) -> bool:
        """Register the cluster once accounting answers; slurmctld does not start before."""
        if not self._sacctmgr("show", "cluster", "dev"):
            self._sacctmgr("add", "cluster", "dev")
        return True

    def _sacctmgr(self, *command: str) -> str:
        return self.run("sacctmgr", "-i", "-n", "-P", *command).strip()

    def _are_usable(self, nodes: list[str]) -> bool:
        self.resume_nodes()
        states = self.nodes()
        return all(states.get(node) in USABLE for node in nodes)

    def _wait_for(self, what: str, is_there: Callable[[], bool], name: str) -> None:
        """Wait for a condition that depends on the daemon `name`."""
        daemon, reason = self.daemons[name], ""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            alive = find_daemon(daemon) is not None
            try:
                if is_there():
                    return
            except ClusterError as error:
                reason = f" ({error})"
            if not alive:
                raise ClusterError(f"{name} ended; {daemon.log}:\n{tail(daemon.log)}")
            time.sleep(0.1)
        raise ClusterError(f"waited {READY_SECONDS:.0f} s for {what}{reason}; {daemon.log}:\n{tail(daemon.log)}")


def _daemons(directory: Path, options: Options, ports: Mapping[str, int]) -> Iterator[Daemon]:
    """The daemons in the order of their start."""
    munged = (
        "munged",
        "--foreground",
        "--force",  # it dislikes directories closed to others, as ours is: they may not use the cluster
        f"--key-file={directory}/munge.key",
        f"--socket={directory}/munge.socket",
        f"--pid-file={directory}/munged.pid",
        f"--seed-file={directory}/munge.seed",
    )
    mariadbd = (
        "mariadbd",
        "--no-defaults",
        "--user=root",
        f"--datadir={directory}/mysql",
        f"--socket={directory}/mysql.socket",
        f"--pid-file={directory}/mariadbd.pid",
        "--bind-address=127.0.0.1",
        f"--port={ports['mariadbd']}",
        f"--init-file={directory}/init.sql",
        "--skip-name-resolve",
        "--innodb-flush-log-at-trx-commit=0",
    )
    yield Daemon("munged", munged, directory, directory)
    if options.accounting:
        yield Daemon("mariadbd", mariadbd, directory, directory)
        yield Daemon("slurmdbd", ("slurmdbd", "-D"), directory, directory)
    yield Daemon("slurmctld", ("slurmctld", "-D"), directory, directory)
    for node in options.node_names:
        yield Daemon(node, ("slurmd", "-D", "-N", node), directory, directory / "spool" / node)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
