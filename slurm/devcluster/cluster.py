"""Up, down, and the faults in between."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from slurm.devcluster.configuration import Ports, free_ports, write_configuration
from slurm.devcluster.options import ClusterError, Options, Refused
from slurm.devcluster.packages import PATH, require
from slurm.devcluster.processes import (
    Daemon,
    end,
    environment,
    find_daemon,
    job_processes,
    start_daemon,
    step_daemons,
)

READY_SECONDS = 90.0
LONGEST_FOLDER = 60
"""Unix sockets lie under the folder, and their paths may have 107 bytes."""
USABLE = {"idle", "mixed", "allocated", "completing", "planned"}


def default_folder() -> Path:
    """Where a cluster lies unless told otherwise: one a user."""
    return Path(tempfile.gettempdir()) / f"mmkd-devcluster-{os.getuid()}"


def up(options: Options, folder: Path | None = None, *, fresh: bool = False) -> DevCluster:
    """Bring a cluster up, or find the one that is up; returns when it takes jobs and accounting answers.

    Its state (job ids, accounting) survives `down` and goes with `fresh`.

    Raises:
        Refused: it may not be brought up here, or runs with other options.
        ClusterError: a daemon did not come up.
    """
    place = (folder or default_folder()).absolute()
    _refuse_foreign(place)
    require(options.accounting)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(place):
        running = _recorded(place)
        if running is not None and not running.running_daemons():
            running = None
        if running is not None and fresh:
            running.shut_down()
            running = None
        if running is not None and running.options != options:
            raise Refused(f"{place}: runs with other options ({running.options}): take it down first, or use those")
        cluster = running or _prepare(place, options, fresh)
        cluster.start_all()
    return cluster


def attach(folder: Path | None = None) -> DevCluster:
    """The cluster that was brought up in `folder`, whether it runs or not.

    Raises:
        Refused: there is none.
    """
    place = (folder or default_folder()).absolute()
    cluster = _recorded(place)
    if cluster is None:
        raise Refused(f"{place}: no cluster was brought up here (python -m slurm.devcluster up)")
    return cluster


class DevCluster:
    """A cluster in a folder. It has no state but the folder and its processes: several objects may share one."""

    def __init__(self, folder: Path, options: Options, ports: Ports) -> None:
        self.folder = folder
        self.options = options
        self.ports = ports
        self._daemons = {daemon.name: daemon for daemon in _daemons(folder, options, ports)}

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment, so that Slurm's commands find this cluster."""
        return environment(self.folder)

    def run(self, *command: str, timeout: float = 60) -> str:
        """The standard output of one of Slurm's commands.

        Raises:
            ClusterError: it failed; the message is what it wrote.
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
        """The state of each node in Slurm's words, with `*` where it does not answer."""
        lines = self.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines()
        return dict(line.split() for line in lines)

    def running_daemons(self) -> dict[str, psutil.Process]:
        """The daemons that live, in the order in which they are started."""
        found = {name: find_daemon(daemon) for name, daemon in self._daemons.items()}
        return {name: process for name, process in found.items() if process is not None}

    def daemon_names(self) -> list[str]:
        """All daemons that a healthy cluster has, in the order in which they are started."""
        return list(self._daemons)

    def start_all(self) -> None:
        """Start what does not run, one after the other, and wait until jobs can be sent; nodes are resumed.

        Raises:
            ClusterError: a daemon ended or did not answer in time.
        """
        for name in self._daemons:
            self._start(name)
        self.resume_nodes()
        self._wait_for("sinfo", lambda: set(self.nodes().values()) <= USABLE, "slurmctld")
        if self.options.accounting:
            self._wait_for("sacct", lambda: self.run("sacct", "-n", "-X") is not None, "slurmdbd")

    def restore(self) -> None:
        """As after `up`: no jobs, all daemons running, all nodes idle, limits as in the options."""
        self.start_all()
        self.cancel_all()
        self.set_grace(self.options.grace)
        if self.options.accounting:
            self.set_max_submit(self.options.max_submit)
        self._wait_for("idle nodes", lambda: set(self.nodes().values()) == {"idle"}, "slurmctld")

    def cancel_all(self) -> None:
        """Cancel every job, kill its processes without grace, and wait until the queue is empty."""
        self.run("scancel", "--user", str(os.getuid()))
        end(job_processes(self.folder), signal.SIGKILL)
        self._wait_for("an empty queue", lambda: not self.run("squeue", "-h"), "slurmctld")

    def set_grace(self, seconds: int) -> None:
        """GraceTime of the partition that is preempted, until slurmctld reads its configuration again."""
        self.run("scontrol", "update", "PartitionName=gpu", f"GraceTime={seconds}")

    def set_max_submit(self, jobs: int | None) -> None:
        """How many jobs a user may have in the queue; None lifts the limit."""
        self._sacctmgr("modify", "qos", "normal", "set", f"MaxSubmitJobsPerUser={-1 if jobs is None else jobs}")

    def resume_nodes(self) -> None:
        """Bring back nodes that are drained or down; those whose slurmd is gone stay down."""
        for node, state in self.nodes().items():
            if state.rstrip("*") not in USABLE:
                self._resume(node)

    def kill_slurmd(self, node: str, *, steps: bool = False) -> None:
        """kill -9 a node's slurmd; its steps run on, unless they are to go too, as when a machine loses power."""
        self._end(node, signal.SIGKILL)
        if steps:
            end([*step_daemons(self.folder, node), *job_processes(self.folder, node)], signal.SIGKILL)

    def start_slurmd(self, node: str) -> None:
        """Start a node's slurmd, and wait until the node can take jobs."""
        self._start(node)
        self._wait_for(node, lambda: self._usable_again(node), node)

    def stop_slurmctld(self) -> None:
        """Stop the controller: Slurm's commands fail, jobs run on."""
        self._end("slurmctld")

    def start_slurmctld(self) -> None:
        """Start the controller, and wait until it answers."""
        self._start("slurmctld")

    def stop_slurmdbd(self) -> None:
        """Stop accounting: sacct fails, jobs go on."""
        self._end("slurmdbd")

    def start_slurmdbd(self) -> None:
        """Start accounting, and wait until sacct answers."""
        self._start("slurmdbd")

    def down(self) -> None:
        """Cancel all jobs and stop everything; no process of the cluster is left, its files stay."""
        with _locked(self.folder):
            self.shut_down()

    def shut_down(self) -> None:
        """`down`, for a caller that holds the folder's lock."""
        if find_daemon(self._daemons["slurmctld"]) is not None:
            try:
                self.cancel_all()
            except ClusterError as error:
                print(f"jobs could not be cancelled, they are killed: {error}")
        for name in ("slurmctld", *self.options.node_names):
            self._end(name)
        end([*step_daemons(self.folder), *job_processes(self.folder)], signal.SIGKILL)
        for name in reversed(self._daemons):
            self._end(name)

    def _start(self, name: str) -> None:
        daemon = self._daemons[name]
        if find_daemon(daemon) is None:
            start_daemon(daemon)
        match name:
            case "munged":
                self._wait_for(name, (self.folder / "munge.socket").is_socket, name)
            case "mariadbd":
                self._wait_for(name, lambda: _listens(self.ports.mariadbd), name)
            case "slurmdbd":
                self._wait_for(name, self._is_registered, name)
            case "slurmctld":
                self._wait_for(name, lambda: "UP" in self.run("scontrol", "ping"), name)

    def _end(self, name: str, kind: signal.Signals = signal.SIGTERM) -> None:
        while (process := find_daemon(self._daemons[name])) is not None:
            end([process], kind)

    def _is_registered(self) -> bool:
        """Whether accounting answers and knows the cluster; slurmctld does not start before."""
        if not self._sacctmgr("show", "cluster", "dev"):
            self._sacctmgr("add", "cluster", "dev")
            self.set_max_submit(self.options.max_submit)
        return True

    def _sacctmgr(self, *command: str) -> str:
        return self.run("sacctmgr", "-i", "-n", "-P", *command).strip()

    def _resume(self, node: str) -> None:
        try:
            self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
        except ClusterError as error:
            # A node that has not registered yet cannot be resumed, and need not be.
            if "Invalid node state" not in str(error):
                raise

    def _usable_again(self, node: str) -> bool:
        self.resume_nodes()
        return self.nodes()[node] in USABLE

    def _wait_for(self, what: str, is_there: Callable[[], bool], name: str) -> None:
        """Wait for a condition that the daemon `name` has to bring about.

        Raises:
            ClusterError: it ended, or time ran out; with the last lines of its log.
        """
        daemon, reason = self._daemons[name], ""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            alive = find_daemon(daemon) is not None
            try:
                if is_there():
                    return
            except ClusterError as error:
                reason = f" ({error})"
            if not alive:
                raise ClusterError(f"{name} ended; {daemon.log}:\n{_tail(daemon.log)}")
            time.sleep(0.1)
        raise ClusterError(f"waited {READY_SECONDS:.0f} s for {what}{reason}; {daemon.log}:\n{_tail(daemon.log)}")


def _daemons(folder: Path, options: Options, ports: Ports) -> Iterator[Daemon]:
    """The daemons in the order in which they are started."""

    def daemon(name: str, *command: str, directory: Path = folder) -> Daemon:
        return Daemon(name, command, folder, directory)

    yield daemon(
        "munged",
        "munged",
        "--foreground",
        "--force",  # a folder that others may not enter is fine: they may not use the cluster either
        f"--key-file={folder}/munge.key",
        f"--socket={folder}/munge.socket",
        f"--pid-file={folder}/munged.pid",
        f"--seed-file={folder}/munge.seed",
    )
    if options.accounting:
        yield daemon(
            "mariadbd",
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={folder}/mysql",
            f"--socket={folder}/mysql.socket",
            f"--pid-file={folder}/mariadbd.pid",
            "--bind-address=127.0.0.1",
            f"--port={ports.mariadbd}",
            f"--init-file={folder}/init.sql",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
        )
        yield daemon("slurmdbd", "slurmdbd", "-D")
    yield daemon("slurmctld", "slurmctld", "-D")
    for node in options.node_names:
        yield daemon(node, "slurmd", "-D", "-N", node, directory=folder / "spool" / node)


def _refuse_foreign(folder: Path) -> None:
    """Stay away from a real Slurm, and from a folder that is not a cluster's.

    Raises:
        Refused: naming what stands in the way.
    """
    if os.geteuid() != 0:
        raise Refused("a development cluster needs root: run it as root, in a container or on a machine of your own")
    if Path("/etc/slurm/slurm.conf").exists():
        raise Refused("/etc/slurm/slurm.conf: this machine has a Slurm of its own; use that one")
    if len(str(folder)) > LONGEST_FOLDER:
        raise Refused(f"--folder {folder}: longer than {LONGEST_FOLDER} characters, too long for Unix sockets")
    if not os.path.lexists(folder):
        return
    found = folder.lstat()
    if not folder.is_dir() or folder.is_symlink() or found.st_uid != os.geteuid():
        raise Refused(f"--folder {folder}: not a directory of yours; choose another")
    if found.st_mode & 0o077:
        raise Refused(f"--folder {folder}: others may enter it; chmod 700 it, or choose another")
    if any(folder.iterdir()) and not (folder / "lock").exists():
        raise Refused(f"--folder {folder}: holds files that are not a cluster's; choose an empty folder")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One `up` or `down` at a time in `folder`; others wait."""
    # Not inherited by the daemons, which would hold it for ever: Python's files are close-on-exec.
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _recorded(folder: Path) -> DevCluster | None:
    try:
        record = json.loads((folder / "cluster.json").read_text())
    except FileNotFoundError:
        return None
    return DevCluster(folder, Options(**record["options"]), Ports(record["first_port"]))


def _prepare(folder: Path, options: Options, fresh: bool) -> DevCluster:
    """The files of a cluster of which nothing runs."""
    if fresh:
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()
    ports = free_ports(folder, options.nodes)
    write_configuration(folder, options, ports)
    if options.accounting and not (folder / "mysql").exists():
        _make_database(folder)
    temporary = folder / ".cluster.json"
    temporary.write_text(json.dumps({"options": options.to_json(), "first_port": ports.first}, indent=2) + "\n")
    temporary.replace(folder / "cluster.json")
    return DevCluster(folder, options, ports)


def _make_database(folder: Path) -> None:
    log, unfinished = folder / "log" / "mariadb-install-db.log", folder / "mysql.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    with log.open("wb") as output:
        made = subprocess.run(
            ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={unfinished}", "--skip-test-db"],
            env={**os.environ, "PATH": PATH},
            stdout=output,
            stderr=output,
        )
    if made.returncode:
        raise ClusterError(f"mariadb-install-db failed; {log}:\n{_tail(log)}")
    unfinished.rename(folder / "mysql")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _tail(path: Path, lines: int = 10) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"
