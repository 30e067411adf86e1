"""A Slurm that exists in memory only: its jobs sleep, fail in every way, and leave the files that real ones leave."""

from __future__ import annotations

import heapq
import random
import re
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmkd.attempts import record_run
from mmkd.failures import Failure
from mmkd.files import read_json
from mmkd.result_file import Result, Status, write_result
from mmkd.rundir import TrialDir

FAILING = ("PREEMPTED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "CANCELLED", "FAILED", "error", "diverged")
"""How an attempt may fail: in Slurm's words where the job says nothing itself, in ours where it does."""
REMEMBERED = 300.0
"""Seconds that squeue shows ended jobs (MinJobAge)."""


@dataclass
class SimulatedJob:
    """A job; `state` is Slurm's word."""

    name: str
    directory: TrialDir
    attempt: int
    state: str = "PENDING"
    seconds: float = 0.0
    ended: float = float("inf")


class SimulatedSlurm:
    """Jobs take `shortest` to `longest` seconds, and each fails at the rate `failing`, some for good."""

    def __init__(self, slots: int, shortest: float, longest: float, failing: float, seed: int) -> None:
        self.slots, self.shortest, self.longest, self.failing = slots, shortest, longest, failing
        self.random = random.Random(seed)
        self.jobs: dict[str, SimulatedJob] = {}
        self.calls: Counter[str] = Counter()
        self.busy = 0.0
        """Seconds of all jobs that have begun."""
        self.cpu = 0.0
        """Seconds of processor time that the simulation itself took."""
        self.at_work = False
        """Whether the simulation, and not the controller, does what is done now."""
        self._waiting: deque[str] = deque()
        self._ends: list[tuple[float, str]] = []
        self._remembered: deque[str] = deque()

    @contextmanager
    def not_counted(self) -> Iterator[None]:
        """What happens inside is the simulation's, not the controller's."""
        begun, self.at_work = time.process_time(), True
        try:
            yield
        finally:
            self.at_work = False
            self.cpu += time.process_time() - begun

    def sbatch(self, path: Path) -> str:
        """Take a job; its script says which trial and attempt."""
        with self.not_counted():
            self.calls["sbatch"] += 1
            script = path.read_text()
            found = re.search(r"mmkd\.trial (\S+) --attempt (\d+)", script)
            name = re.search(r"--job-name=(\S+)", script)
            assert found is not None, script
            assert name is not None, script
            identifier = str(len(self.jobs) + 1)
            self.jobs[identifier] = SimulatedJob(name[1], TrialDir(Path(found[1])), int(found[2]))
            self._waiting.append(identifier)
            self._remembered.append(identifier)
            self.advance()
            return identifier

    def ask(self, *command: str) -> str:
        """squeue and sacct, in their own words."""
        with self.not_counted():
            self.calls[command[0]] += 1
            self.advance()
            if command[0] == "squeue":
                return "".join(
                    f"{i}|{self.jobs[i].state}|None|n1|gpu|0:10|1:00|N/A|{self.jobs[i].name}\n" for i in self._shown()
                )
            wanted = command[command.index("-j") + 1].split(",")
            return "".join(f"{i}|{self.jobs[i].state}|0:0|10|gres/gpu=1|n1||{self.jobs[i].name}\n" for i in wanted)

    def advance(self) -> None:
        """Let time pass: jobs end, and others begin."""
        now = time.monotonic()
        while self._ends and self._ends[0][0] <= now:
            ended, identifier = heapq.heappop(self._ends)
            self._end(self.jobs[identifier], ended)
            if self._waiting:
                self._begin(self._waiting.popleft(), ended)
        while self._waiting and len(self._ends) < self.slots:
            self._begin(self._waiting.popleft(), now)

    def _shown(self) -> list[str]:
        now = time.monotonic()
        self._remembered = deque(i for i in self._remembered if self.jobs[i].ended > now - REMEMBERED)
        return list(self._remembered)

    def _begin(self, identifier: str, now: float) -> None:
        job = self.jobs[identifier]
        job.state, job.seconds = "RUNNING", self.random.uniform(self.shortest, self.longest)
        self.busy += job.seconds
        heapq.heappush(self._ends, (now + job.seconds, identifier))

    def _end(self, job: SimulatedJob, now: float) -> None:
        job.ended = now
        end = self.random.choice(FAILING) if self.random.random() < self.failing else "complete"
        if end.isupper():
            job.state = end
            record_run(job.directory, job.attempt, started=time.time() - job.seconds)
            return
        job.state = "FAILED" if end == "error" else "COMPLETED"
        if end != "error":
            self._write_result(job, Status(end))
        told = Failure.ERROR if end == "error" else "complete"
        record_run(job.directory, job.attempt, started=time.time() - job.seconds, end=told, ended=time.time())

    @staticmethod
    def _write_result(job: SimulatedJob, status: Status) -> None:
        config = read_json(job.directory.config)
        loss = abs(1e-3 - config["training"]["learning_rate"])
        metrics = {split: {"loss": loss, "accuracy": 0.5} for split in ("valid", "test")}
        write_result(job.directory, Result(status, config, metrics=metrics, epochs=1, seconds=job.seconds))
