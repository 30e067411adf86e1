"""A study under attack: launched, disturbed and launched again until it is done, on this machine or a real Slurm."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from survival import Stuck, trial_dirs, wait_for
from tiny_study import write_tiny_study

from mmkd.rundir import Root, TrialDir
from slurm.accounting import NoAnswer, QueuedJob, squeue
from slurm.devcluster import DevCluster
from slurm.local_backend import usable_cores
from sweeps.controller.job_names import job_tag

REPOSITORY = Path(__file__).resolve().parents[2]
SLOW = Path(__file__).resolve().parent / "slow_files"
"""On PYTHONPATH it makes a Python process's writes slow."""
LAUNCHES = 8
"""An undisturbed study needs one; after the last fault this many are enough for any."""
LAST_WORDS = 120.0
"""Seconds in which a superseded job has to notice: within 10 s of training, after its start of some seconds."""
DISK = "64m"


@dataclass(frozen=True)
class Variant:
    """A tiny study: its first `rows`, and its size as launch's options."""

    rows: int
    size: tuple[str, ...]


_REPLICATES = ("--replicates", "3", "--splits", "group-folds")
VARIANTS = {
    "plain": Variant(1, ("--trials", "4", "--seeds", "1", "--epochs", "60")),
    "taught": Variant(2, ("--trials", "2", "--seeds", "1", "--epochs", "40")),
    "replicated": Variant(2, (*_REPLICATES, "--trials", "2", "--seeds", "1", "--epochs", "20")),
    "brief": Variant(1, ("--trials", "2", "--seeds", "1", "--epochs", "20")),
}
"""`taught` has a row without a teacher, one with, and two teachers; `replicated` has that three times, each on a split
of its own; `brief` is for tests."""


def processes_of(root: Path) -> list[psutil.Process]:
    """Living trials under a root, whoever started them: processes that run mmkd.trial on one of its directories."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = _words(process.info["cmdline"] or [])
        ours = "mmkd.trial" in line and any(part.startswith(f"{root}/") for part in line)
        if ours and "python" in Path(line[0]).name and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def _words(line: list[str]) -> list[str]:
    """The words of a command line; a trial that a worker forked has its own in one string."""
    return " ".join(line).split()


def directory_of(process: psutil.Process) -> TrialDir | None:
    """The directory that a trial's process runs in; None once it is gone."""
    try:
        line = _words(process.cmdline())
        return TrialDir(Path(line[line.index("mmkd.trial") + 1]))
    except (psutil.NoSuchProcess, ValueError, IndexError):
        return None


@dataclass
class AttackedStudy:
    """A study of a variant under `folder`; on `cluster`, or on this machine where that is None.

    Its root lies on a small file system of its own where one could be mounted (`own_disk`).
    """

    folder: Path
    variant: str
    cluster: DevCluster | None = None
    with_workers: bool = False
    """On the cluster: trials run in workers; on this machine they always do."""
    launches: int = 0
    controllers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """Processes that were started by hand."""

    @property
    def disk(self) -> Path:
        """Where the file system is mounted."""
        return self.folder / "disk"

    @property
    def root(self) -> Path:
        """See mmkd.rundir."""
        return self.disk / "runs"

    @property
    def log(self) -> Path:
        """What all controllers print; not on the file system that is filled."""
        return self.folder / "controllers.txt"

    @property
    def own_disk(self) -> bool:
        """Whether the root has a file system of its own."""
        return self.disk.is_mount()

    def prepare(self) -> None:
        """Make the folder anew, with what a killed campaign left there ended and removed."""
        self.end_everything()
        self.remove()
        self.disk.mkdir(parents=True)
        if os.geteuid() == 0:
            # Where mounting is not allowed (in most containers), faults of the disk are left out.
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", self.disk], capture_output=True)

    def unmount(self) -> None:
        """Let go of the file system, and of what is on it."""
        if self.disk.is_mount():
            subprocess.run(["umount", "-l", self.disk], check=True)

    def remove(self) -> None:
        """Remove the folder, and its file system."""
        self.unmount()
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self) -> None:
        """Copy what is on the study's file system off it, so that it can be looked at, and let go of that."""
        shutil.copytree(self.disk, self.folder / "kept", symlinks=True)
        self.unmount()

    def start(self, *options: str, slow: bool = False, **more: str) -> subprocess.Popen[bytes]:
        """Start a controller; `slow`: its writes and its jobs' take their time. Both get the variables `more`."""
        slots = 4 if self.cluster else usable_cores()
        cluster = ("--slurm.poll", "2", "--slurm.cpus", "1", "--slurm.mem", "1G") if self.cluster else ()
        cluster += ("--slurm.workers", "2", "--slurm.trials_per_worker", "2") if self.with_workers else ()
        where = ("--cluster", "slurm" if self.cluster else "local", "--parallel", str(slots), *cluster)
        study = study_file(self.folder.parent, self.variant)
        with self.log.open("ab") as log:
            controller = subprocess.Popen(
                [*launch_command(study, self.root, self.variant), *where, *options],
                stdout=log,
                stderr=log,
                env={**environment(slow=slow), **more},
            )
        self.controllers.append(controller)
        self.launches += 1
        return controller

    def start_by_hand(self, directory: TrialDir, attempt: int) -> None:
        """Run a trial's command as a user might who knows no better."""
        command = [sys.executable, "-m", "mmkd.trial", str(directory.path), "--attempt", str(attempt)]
        with (self.folder / "by-hand.txt").open("ab") as log:
            self.others.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment()))

    def controller(self) -> subprocess.Popen[bytes] | None:
        """The controller that lives, the last started first."""
        return next((c for c in reversed(self.controllers) if c.poll() is None), None)

    def trials(self) -> list[psutil.Process]:
        """Living trials."""
        return processes_of(self.root)

    def worker(self) -> psutil.Process | None:
        """A process that forks trials: the one of the living controller, or of a job on Slurm."""
        controller, workers = self.controller(), str(Root(self.root).workers)
        with suppress(psutil.NoSuchProcess):
            if self.cluster is None:
                found = psutil.Process(controller.pid).children() if controller else []
            else:
                found = [p for p in psutil.process_iter(["cmdline"]) if workers in (p.info["cmdline"] or [])]
            return next((p for p in found if p.cmdline()[1:3] == ["-m", "mmkd.worker"]), None)
        return None

    def inbox(self) -> Path | None:
        """The inbox of a process that forks trials."""
        if self.cluster is not None:
            return next(iter(sorted(Root(self.root).workers.glob("*/inbox"))), None)
        worker = self.worker()
        with suppress(psutil.NoSuchProcess):
            return Path(worker.cmdline()[-1]) / "inbox" if worker else None
        return None

    def forget_ended(self) -> None:
        """What ended controllers said of the study holds no more: it was disturbed since."""
        self.controllers = [c for c in self.controllers if c.poll() is None]

    def is_done(self) -> bool:
        """Whether the last controller to end said so."""
        return self.controller() is None and bool(self.controllers) and self.controllers[-1].returncode == 0

    def get_going(self) -> bool:
        """Have a controller at work and a trial alive; False if the study is done instead.

        Raises:
            Stuck: neither came to be.
        """
        for _ in range(LAUNCHES):
            if self.is_done():
                return False
            controller = self.controller() or self.start()
            wait_for("a trial or an end", lambda c=controller: c.poll() is not None or self.trials())
            if controller.poll() is None:
                return True
        raise Stuck(f"{LAUNCHES} launches, and none got going:\n{self.last_words()}")

    def finish(self) -> None:
        """Launch until the study is done, undisturbed.

        Raises:
            Stuck: it is not, after `LAUNCHES`.
        """
        for _ in range(LAUNCHES):
            if self.is_done():
                wait_for("the end of superseded jobs", lambda: not self.trials() and not self.queued(), LAST_WORDS)
                return
            controller = self.controller() or self.start()
            wait_for("the end of the study", lambda c=controller: c.poll() is not None)
        if not self.is_done():
            raise Stuck(f"not done after {LAUNCHES} launches:\n{self.last_words()}")

    def end_everything(self) -> None:
        """kill -9 all that belongs to the study, so that nobody writes."""
        for process in (*self.controllers, *self.others):
            if process.poll() is None:
                process.kill()
                process.wait()
        for job in self.queued():
            assert self.cluster is not None
            self.cluster.run("scancel", job.id)
        wait_for("the end of all trials", self._no_trial_lives, 60)

    def _no_trial_lives(self) -> bool:
        trials = self.trials()
        for trial in trials:
            kill(trial, signal.SIGKILL)
        return not trials and not self.queued()

    def queued(self) -> list[QueuedJob]:
        """The study's jobs that Slurm has."""
        if self.cluster is None:
            return []
        try:
            return [j for j in squeue() if not j.ended and j.name.startswith(f"{job_tag(Root(self.root))}.")]
        except NoAnswer:
            return []

    def name(self, path: Path) -> str:
        """A path as the record has it."""
        return str(path.relative_to(self.root))

    def files(self, pattern: str) -> list[Path]:
        """Files under the root, in a fixed order."""
        return sorted(path for path in self.root.glob(pattern) if path.is_file())

    def stage(self) -> str:
        """How far it is: what a fault hits."""
        finished = sum(directory.result.exists() for directory in trial_dirs(self.root)) if self.root.exists() else 0
        return f"{finished} finished, {len(self.trials())} running"

    def last_words(self) -> str:
        """The end of what the controllers printed."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""


def kill(process: psutil.Process, number: signal.Signals) -> bool:
    """Send a signal; False if the process is gone."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def launch_command(study: Path, root: Path, variant: str) -> list[str]:
    """What a user types, but for where it runs."""
    where = ("--study", str(study), "--root", str(root), "--device", "cpu")
    return [sys.executable, str(REPOSITORY / "sweeps" / "launch.py"), *where, *VARIANTS[variant].size]


def environment(*, slow: bool = False) -> dict[str, str]:
    """Of all processes: the code that stands here, whatever is installed; `slow` makes their writes slow."""
    path = os.pathsep.join([str(SLOW), str(REPOSITORY)] if slow else [str(REPOSITORY)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def study_file(folder: Path, variant: str) -> Path:
    """The variant's study file, made with its data when first asked for."""
    directory = folder / f"{variant}-study"
    there = directory / "tiny.toml"
    return there if there.exists() else write_tiny_study(directory, VARIANTS[variant].rows)


def undisturbed(folder: Path, variant: str) -> Path:
    """The root of the variant when nothing disturbs it; made once."""
    root, making = folder / f"{variant}-undisturbed", folder / f"{variant}-making"
    if not root.exists():
        shutil.rmtree(making, ignore_errors=True)
        command = launch_command(study_file(folder, variant), making, variant)
        where = ("--cluster", "local", "--parallel", str(usable_cores()))
        subprocess.run([*command, *where], check=True, env=environment(), stdout=subprocess.DEVNULL)
        making.rename(root)
    return root


def remains(folder: Path) -> Iterator[AttackedStudy]:
    """Studies that a killed campaign left in the midst of their faults."""
    for directory in sorted(folder.glob("study-*")):
        yield AttackedStudy(directory, "plain")
