"""A study on a real Slurm that is launched, disturbed and relaunched until it is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from survival import Stuck, trial_dirs, wait_for

from mmkd.attempts import current_attempt
from mmkd.metrics_log import read_metrics
from mmkd.rundir import Root, TrialDir
from mmkd.trial_state import State, trial_state
from slurm.accounting import NoAnswer, QueuedJob, squeue
from slurm.devcluster import DevCluster
from sweeps.controller.job_names import job_tag

REPOSITORY = Path(__file__).resolve().parents[1]
RELAUNCHES = 5

DIES_BETWEEN_SBATCH_AND_RECORD = """
import os, signal, sys
import sweeps.controller.jobs as jobs
record = jobs.record_submission
def dies(directory, number, **facts):
    if "job" in facts and "end" not in facts:
        os.kill(os.getpid(), signal.SIGKILL)
    record(directory, number, **facts)
jobs.record_submission = dies
"""
"""Slurm has the job, and nobody has noted its id."""
DIES_BEFORE_SBATCH = """
import os, signal
import slurm.slurm_backend
slurm.slurm_backend.SlurmBackend.submit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
"""The attempt is announced, and Slurm has no job."""


@dataclass
class FaultyStudy:
    """A study under `root`, whose jobs run on `cluster`; Slurm's commands must find that by the environment.

    `faults` counts what was done to it.
    """

    cluster: DevCluster
    study: Path
    root: Path
    options: tuple[str, ...]
    faults: Counter[str] = field(default_factory=Counter)
    controllers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def said(self) -> str:
        """What all controllers have printed."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def _log(self) -> Path:
        return self.root.with_name(f"{self.root.name}.txt")

    def start(self, patch: str = "") -> subprocess.Popen[bytes]:
        """Start a controller; `patch` is Python that it runs first."""
        slurm = ("--cluster", "slurm", "--slurm.poll", "2", "--slurm.cpus", "1", "--slurm.mem", "1G", "--parallel", "8")
        where = ("--study", str(self.study), "--root", str(self.root), "--device", "cpu")
        main = f"{patch}\nimport sys\nfrom sweeps.launch import main\nsys.exit(main(sys.argv[1:]))"
        with self._log.open("ab") as log:
            controller = subprocess.Popen(
                [sys.executable, "-c", main, *where, *slurm, *self.options],
                stdout=log,
                stderr=log,
                # Jobs inherit it: they run the code that stands here, whatever is installed.
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"},
            )
        self.controllers.append(controller)
        return controller

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """A controller that is disturbed in the block; afterwards the study is done, however often it takes."""
        controller = self.start()
        yield controller
        self.finish(controller)

    def finish(self, controller: subprocess.Popen[bytes] | None = None) -> None:
        """Wait for a controller, and relaunch until the study is done.

        Raises:
            Stuck: it is not, after `RELAUNCHES`.
        """
        for _ in range(RELAUNCHES):
            current = controller or self.start()
            wait_for("the end of the study", lambda current=current: current.poll() is not None)
            if current.returncode == 0:
                wait_for("an empty queue", lambda: not self.jobs())
                return
            self.faults["relaunched"] += 1
            controller = None
        raise Stuck(f"not done after {RELAUNCHES} launches:\n{self.said[-3000:]}")

    def kill_controller(self, controller: subprocess.Popen[bytes]) -> None:
        """kill -9, as the machine's memory or its administrator would."""
        controller.kill()
        controller.wait()
        self.faults["controller killed"] += 1

    def stop_all(self) -> None:
        """Leave no controller behind."""
        for controller in self.controllers:
            if controller.poll() is None:
                controller.send_signal(signal.SIGKILL)
                controller.wait()

    def jobs(self, state: str = "") -> list[QueuedJob]:
        """The study's jobs that Slurm has, those of one state or all that have not ended."""
        try:
            mine = [job for job in squeue() if job.name.startswith(f"{job_tag(Root(self.root))}.")]
        except NoAnswer:
            return []
        return [job for job in mine if (job.state == state if state else not job.ended)]

    def training(self) -> list[TrialDir]:
        """Trials of which an attempt trains just now, two epochs at least since it began."""
        return [d for d in trial_dirs(self.root) if trial_state(d) is State.RUNNING and self._epochs_gained(d) >= 2]

    def _epochs_gained(self, directory: TrialDir) -> int:
        began = directory.job_record(current_attempt(directory)).stat().st_mtime
        return sum(line["time"] > began for line in read_metrics(directory))

    def wait_until_training(self, least: int = 1) -> list[QueuedJob]:
        """The running jobs, as soon as at least so many train.

        Raises:
            RuntimeError: they never will, for the study has ended.
        """
        wait_for(f"{least} training jobs", lambda: self._is_training(least))
        return self.jobs("RUNNING")

    def _is_training(self, least: int) -> bool:
        if len(self.training()) >= least:
            return True
        if all(controller.poll() is not None for controller in self.controllers) and not self.jobs():
            raise RuntimeError("the study ended before it could be disturbed")
        return False
