"""What the controller costs at 1,000 slots and 10,000 trials, on a simulated Slurm: `python benchmarks/scaling.py`.

The controller and the Slurm backend are the real ones, and so are all files that they write and read; simulated are the
commands sbatch, squeue and sacct, and the jobs, which sleep, fail in every way at a given rate, and write a result. What
the jobs and the simulation cost is measured apart and taken away.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import re
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from optuna.trial import TrialState
from rich.console import Console

from mmkd.config import from_json
from mmkd.files import read_json
from mmkd.results import Result, Status, read_attempts, record_run, write_result
from mmkd.rundir import Root, TrialDir
from slurm.cluster import SlurmBackend
from slurm.settings import SlurmSettings
from sweeps.controller import Controller
from sweeps.launch import open_data
from sweeps.planning import Machine, plan
from sweeps.reporting import Reporter
from sweeps.rowwork import RowWork
from sweeps.study import load_profile, load_study

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
STATES = ("PREEMPTED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "CANCELLED", "FAILED")


class SimulatedSlurm:
    """A Slurm whose jobs take `shortest` to `longest` seconds and fail, before they do anything, at the rate `failing`."""

    def __init__(self, slots: int, shortest: float, longest: float, failing: float, seed: int) -> None:
        self.slots, self.shortest, self.longest, self.failing = slots, shortest, longest, failing
        self.random = random.Random(seed)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.waiting: list[str] = []
        self.ends: list[tuple[float, str]] = []
        self.calls: Counter[str] = Counter()
        self.busy = 0.0
        self.cpu = 0.0
        """Seconds of processor time that the simulation itself took."""

    @contextmanager
    def not_counted(self) -> Iterator[None]:
        """What happens inside is the simulation's, not the controller's."""
        begun = time.process_time()
        yield
        self.cpu += time.process_time() - begun

    def sbatch(self, path: Path) -> str:
        """Take a job; its script says which trial and attempt."""
        with self.not_counted():
            self.calls["sbatch"] += 1
            script = path.read_text()
            found = re.search(r"mmkd\.trial (\S+) --attempt (\d+)", script)
            name = re.search(r"--job-name=(\S+)", script)
            assert found and name
            identifier = str(len(self.jobs) + 1)
            self.jobs[identifier] = {"name": name[1], "state": "PENDING", "place": found[1], "attempt": int(found[2])}
            self.waiting.append(identifier)
            self.advance()
            return identifier

    def ask(self, *command: str) -> str:
        """squeue and sacct, in their own words."""
        with self.not_counted():
            self.calls[command[0]] += 1
            self.advance()
            now = time.monotonic()
            if command[0] == "squeue":
                shown = ((i, j) for i, j in self.jobs.items() if j.get("ended", now) > now - 300)
                return "".join(f"{i}|{j['state']}|None|n1|gpu|0:10|1:00|N/A|{j['name']}\n" for i, j in shown)
            wanted = command[command.index("-j") + 1].split(",")
            return "".join(f"{i}|{self.jobs[i]['state']}|0:0|10|gres/gpu=1|n1||{self.jobs[i]['name']}\n" for i in wanted)

    def advance(self) -> None:
        """Let time pass: jobs end, and others begin."""
        now = time.monotonic()
        while self.ends and self.ends[0][0] <= now:
            ended, identifier = heapq.heappop(self.ends)
            self._end(self.jobs[identifier])
            if self.waiting:
                self._begin(self.waiting.pop(0), ended)
        while self.waiting and len(self.ends) < self.slots:
            self._begin(self.waiting.pop(0), now)

    def _begin(self, identifier: str, now: float) -> None:
        seconds = self.random.uniform(self.shortest, self.longest)
        self.busy += seconds
        self.jobs[identifier] |= {"state": "RUNNING", "seconds": seconds}
        heapq.heappush(self.ends, (now + seconds, identifier))

    def _end(self, job: dict[str, Any]) -> None:
        place, attempt = TrialDir(Path(job["place"])), job["attempt"]
        job["ended"] = time.monotonic()
        record_run(place, attempt, started=time.time() - job["seconds"])
        if attempt == 1 and self.random.random() < self.failing:
            job["state"] = self.random.choice(STATES)
            return
        job["state"] = "COMPLETED"
        config = read_json(place.config)
        loss = abs(1e-3 - from_json(config, place.config).training.learning_rate)
        metrics = {split: {"loss": loss, "accuracy": 0.5} for split in ("valid", "test")}
        write_result(place, Result(Status.COMPLETE, config, metrics=metrics, epochs=1))
        record_run(place, attempt, end="complete", ended=time.time())


def simulate(options: argparse.Namespace, folder: Path) -> Mapping[str, Any]:
    """Run one study on the simulated Slurm; what it cost."""
    slurm = SimulatedSlurm(options.slots, options.shortest, options.longest, options.failing, options.seed)
    study_file = folder / "scaling.toml"
    study_file.write_text(STUDY)
    overrides = [("defaults.trials", options.trials), ("defaults.sampler", options.sampler)]
    study, root = load_study(study_file, overrides), Root(folder / "runs")
    info = open_data(study, root)
    _, profile = load_profile("auto", info.source)
    rows = plan(study, study_file, profile, info, root, Machine(info.path, 1, "cpu"))
    log = Console(file=(folder / "log.txt").open("w"))
    with (
        patch("slurm.accounting.ask", slurm.ask),
        patch("slurm.cluster.SlurmBackend._sbatch", staticmethod(slurm.sbatch)),
        patch("slurm.cluster.SlurmExecutor.affinity", classmethod(lambda cls: 2)),
        Reporter(log) as reporter,
    ):
        backend = SlurmBackend(SlurmSettings(poll=options.poll))
        work = RowWork(rows[0], root, options.slots, study_file)
        controller = Controller([work], root, backend, options.slots, reporter, slurm_turn(slurm), interval=0.5)
        marks: list[tuple[int, float]] = []
        watch(controller, work, slurm, marks, options.trials)
        began, cpu = time.monotonic(), time.process_time()
        controller.run()
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu - slurm.cpu
        work.close()
    trials = work.tuning.trials()
    told = Counter(t.state for t in trials)
    attempts = [a for t in work.directory.trials() for a in read_attempts(t)]
    return {
        "sampler": options.sampler,
        "trials": len(trials),
        "told complete": told[TrialState.COMPLETE],
        "told otherwise or not": len(trials) - told[TrialState.COMPLETE],
        "attempts": len(attempts),
        "failures": dict(Counter(a.end for a in attempts if a.end != "complete")),
        "seconds": round(seconds, 1),
        "slots busy": round(slurm.busy / (options.slots * seconds), 3),
        "squeue and sacct a minute": round(60 * (slurm.calls["squeue"] + slurm.calls["sacct"]) / seconds, 2),
        "controller CPU ms a trial": round(1e3 * cpu / len(trials), 2),
        "of which from trial to trial": [
            f"{a[0]}-{b[0]}: {1e3 * (b[1] - a[1]) / (b[0] - a[0]):.2f}" for a, b in zip(marks, marks[1:], strict=False)
        ],
        "simulation CPU s": round(slurm.cpu, 1),
        "peak memory MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "journal MiB": round(work.directory.journal.stat().st_size / 2**20, 2),
    }


def slurm_turn(slurm: SimulatedSlurm) -> Any:
    """Called in each of the controller's rounds: time passes for the jobs."""

    def turn() -> None:
        with slurm.not_counted():
            slurm.advance()

    return turn


def watch(controller: Controller, work: RowWork, slurm: SimulatedSlurm, marks: list[tuple[int, float]], n: int) -> None:
    """Note the controller's processor time at each tenth of the trials."""
    settle, done = work.settle, 0

    def counted(task: Any) -> str:
        nonlocal done
        done += 1
        if done % max(n // 5, 1) == 1:
            marks.append((done, time.process_time() - slurm.cpu))
        return settle(task)

    work.settle = counted  # type: ignore[method-assign]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=1_000)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--shortest", type=float, default=20.0, help="seconds of a job (default: %(default)s)")
    parser.add_argument("--longest", type=float, default=60.0, help="seconds of a job (default: %(default)s)")
    parser.add_argument("--failing", type=float, default=0.1, help="share of first attempts that fail")
    parser.add_argument("--poll", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mmkd-scaling-"))
    try:
        print(json.dumps(simulate(options, folder), indent=2))
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
