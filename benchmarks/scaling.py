"""What the controller costs at 1,000 slots and 10,000 trials, on a simulated Slurm: `python benchmarks/scaling.py`.

The controller and the Slurm backend are the real ones, and so are all files that they write and read; simulated are the
commands sbatch, squeue and sacct, and the jobs: they sleep, fail in every way at a given rate, and write a result. What
the simulation costs is measured apart and taken away; in the simulation's own writes nothing waits for the disk, for
real jobs do that on their nodes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from rich.console import Console
from simulation import FAILING, SimulatedSlurm

from mmkd.attempts import read_attempts
from mmkd.rundir import Root
from slurm.settings import SlurmSettings
from slurm.slurm_backend import SlurmBackend
from sweeps.controller.loop import Controller
from sweeps.controller.progress import Reporter
from sweeps.controller.row import RowWork
from sweeps.planning import Machine, plan
from sweeps.profile_file import load_profile
from sweeps.resolve import open_data
from sweeps.study_file import load_study

STUDY = """
title = "scaling"
control = "no_kd"
[defaults]
seeds = 3
[defaults.space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
[[rows]]
name = "no_kd"
method = "no_kd"
"""
INTERVAL = 0.5
"""Seconds between the controller's rounds, as launch.py has it on Slurm."""


class Meter:
    """Called in each of the controller's rounds: time passes for the jobs, and what was spent so far is noted.

    A mark is made at each fifth of the trials: how many were sampled, seconds of processor time that the controller
    took, and its memory.
    """

    def __init__(self, slurm: SimulatedSlurm, work: RowWork, trials: int) -> None:
        self.slurm, self.work, self.step = slurm, work, max(trials // 5, 1)
        self.marks: list[tuple[int, float, float]] = []
        self.syncs, self.syncing = 0, 0.0
        """How often, and for how many seconds in all, the controller waited for the disk."""
        self._sync = os.fsync

    def fsync(self, descriptor: int) -> None:
        """os.fsync, measured; the simulation's own writes do not wait."""
        if self.slurm.at_work:
            return
        began = time.monotonic()
        self._sync(descriptor)
        self.syncs, self.syncing = self.syncs + 1, self.syncing + time.monotonic() - began

    def __call__(self) -> None:
        """A round."""
        with self.slurm.not_counted():
            self.slurm.advance()
        if self.work.tuning.sampled >= self.step * len(self.marks):
            memory = psutil.Process().memory_info().rss / 2**20
            self.marks.append((self.work.tuning.sampled, time.process_time() - self.slurm.cpu, memory))

    def per_trial(self) -> dict[str, float]:
        """Milliseconds of processor time a trial between marks: to the first, what filling all slots took."""
        return {
            f"{a} to {b}": round(1e3 * (later - earlier) / (b - a), 2)
            for (a, earlier, _), (b, later, _) in zip(self.marks, self.marks[1:], strict=False)
            if b > a
        }


def simulate(options: argparse.Namespace, directory: Path) -> Mapping[str, Any]:
    """Run one study on the simulated Slurm; what it cost."""
    slurm = SimulatedSlurm(options.slots, options.shortest, options.longest, options.failing, options.seed)
    study_file = directory / "scaling.toml"
    study_file.write_text(STUDY)
    overrides = [("defaults.trials", options.trials), ("defaults.sampler", options.sampler)]
    study, root = load_study(study_file, overrides), Root(directory / "runs")
    info = open_data(study, root)
    _, profile = load_profile("auto", info.source)
    rows = plan(study, study_file, profile, info, root, Machine(info.path, 1, "cpu"))
    parallel = options.slots + options.waiting
    work = RowWork(rows[0], parallel, study_file)
    meter = Meter(slurm, work, options.trials)
    with (
        patch("slurm.accounting.ask", slurm.ask),
        patch("submitit.core.utils.CommandFunction.__call__", lambda sbatch: slurm.sbatch(Path(sbatch.command[-1]))),
        patch("submitit.SlurmExecutor.affinity", classmethod(lambda cls: 2)),
        patch("os.fsync", meter.fsync),
        (directory / "log.txt").open("w") as log,
        Reporter(Console(file=log)) as reporter,
    ):
        backend = SlurmBackend(SlurmSettings(poll=options.poll))
        controller = Controller([work], root, backend, parallel, reporter, meter, interval=INTERVAL)
        began, cpu = time.monotonic(), time.process_time()
        controller.run()
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu - slurm.cpu
        work.close()
    attempts = [a for t in work.directory.trials() for a in read_attempts(t)]
    reports = count_reports(work.directory.journal)
    trials = len(work.tuning.trials())
    return {
        "sampler": options.sampler,
        "slots": options.slots,
        "parallel": parallel,
        "trials": trials,
        "reported": dict(Counter(t.state.name.lower() for t in work.tuning.trials())),
        "not reported exactly once": sum(reports[number] != 1 for number in range(trials)),
        "attempts": len(attempts),
        "failures": dict(Counter(a.end for a in attempts if a.end != "complete")),
        "seconds": round(seconds, 1),
        "slots busy": round(slurm.busy / (options.slots * seconds), 3),
        "calls a minute": {name: round(60 * calls / seconds, 2) for name, calls in slurm.calls.items()},
        "controller CPU ms a trial": round(1e3 * cpu / trials, 2),
        "of which from trial to trial": meter.per_trial(),
        "controller CPU share": round(cpu / seconds, 3),
        "waits for the disk a trial": round(meter.syncs / trials, 2),
        "ms each": round(1e3 * meter.syncing / meter.syncs, 2),
        "memory MiB": {asked: round(memory) for asked, _, memory in meter.marks},
        "peak memory MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "journal MiB": round(work.directory.journal.stat().st_size / 2**20, 2),
        "simulation CPU s": round(slurm.cpu, 1),
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def count_reports(journal: Path) -> Counter[int]:
    """How often each trial was reported, from Optuna's journal: lines that set a finished state."""
    reported: Counter[int] = Counter()
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        if entry["op_code"] == 6 and entry["state"] in (1, 2, 3):  # SET_TRIAL_STATE_VALUES; complete, pruned, fail
            reported[entry["trial_id"]] += 1
    return reported


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000, metavar="N")
    parser.add_argument("--slots", type=int, default=1_000, metavar="N")
    parser.add_argument("--waiting", type=int, default=100, metavar="N", help="jobs in the queue beyond the slots")
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--shortest", type=float, default=60.0, metavar="S", help="seconds of a job")
    parser.add_argument("--longest", type=float, default=180.0, metavar="S", help="seconds of a job")
    parser.add_argument(
        "--failing", type=float, default=0.1, help=f"share of attempts that end in {', '.join(FAILING)}"
    )
    parser.add_argument("--poll", type=float, default=30.0, metavar="S", help="seconds between questions to Slurm")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="mmkd-scaling-"))
    try:
        print(json.dumps(simulate(options, directory), indent=2))
    finally:
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
