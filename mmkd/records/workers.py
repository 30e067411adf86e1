"""Records of a worker: assignments to it, its processes, and its state."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mmkd.records.schema import Record, write_record
from mmkd.rundir import WorkerDir


class AssignmentRecord(Record):
    """`inbox/<name>.json` of a worker: the arguments of `mmkd.trial`, its log, and the variables of its process.

    `slots`: those that it takes of the worker's, above 1 after a trial ran out of memory.
    """

    arguments: tuple[str, ...]
    log: str
    environment: Mapping[str, str]
    slots: int = 1


class ProcessRecord(Record):
    """`processes/<name>.json` of a worker: process id (0: not started), creation time, and how it ended.

    Args:
        code: the exit code (-N: killed by signal N); None while it runs.
        failure: `out_of_memory` if the kernel killed it for lack of memory.
    """

    pid: int
    started: float
    code: int | None = None
    failure: str = ""


class WorkerRecord(Record):
    """`worker.json` of a worker that is a job on Slurm, rewritten every few seconds.

    Args:
        study: the study whose controller assigns trials to it.
        slots: trials at once.
        gpus: GPUs of the job.
        node: where it runs.
        beat: counts up for as long as it works: proof of life without a clock.
        seconds: since the start of its process, by its own clock.
        taken: slots in which a trial runs now.
        busy: slots times seconds in which trials ran.
    """

    study: str
    slots: int
    gpus: int
    node: str
    beat: int
    seconds: float
    taken: int
    busy: float

    @property
    def idle_gpu_seconds(self) -> float:
        """GPU-seconds in which slots were free."""
        return self.gpus * max(self.seconds - self.busy / self.slots, 0.0)


def assign(worker: WorkerDir, name: str, assignment: AssignmentRecord) -> None:
    """Put an assignment into a worker's inbox, by rename.

    Raises:
        FileNotFoundError: the worker's directory is gone.
    """
    draft = worker.path / f"{name}.json"
    write_record(draft, assignment)
    os.rename(draft, worker.assignment(name))
