"""The workers of a study on Slurm: those in the queue, their slots, and the GPU-hours of free slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mmkd.formatting import count
from mmkd.records import WorkerRecord, find_record
from mmkd.rundir import Root
from slurm.accounting import QueuedJob


def worker_records(root: Root, study: str) -> dict[str, WorkerRecord]:
    """The last records of all workers of a study, past ones included, by job id."""
    found = {path.parent.name: find_record(path, WorkerRecord) for path in root.workers.glob("*/worker.json")}
    return {job: record for job, record in found.items() if record is not None and record.study == study}


def idle_gpu_seconds(root: Root, study: str) -> float:
    """GPU-seconds of workers' free slots, which no trial's attempt counts."""
    return sum(record.idle_gpu_seconds for record in worker_records(root, study).values())


def describe_workers(root: Root, jobs: Iterable[QueuedJob]) -> str:
    """Describe workers in the queue, for example `2 running, 3 of 4 slots busy; 1 PENDING (Priority)`; "" if none."""
    running, waiting = [], Counter[str]()
    for job in jobs:
        if job.state == "RUNNING":
            running.append(find_record(root.worker(job.id).record, WorkerRecord))
        elif not job.ended:
            waiting[f"{job.state} ({job.reason})" if job.reason not in ("", "None") else job.state] += 1
    started = [record for record in running if record is not None]
    parts = [f"{number} {state}" for state, number in waiting.items()]
    if running:
        busy, slots = sum(record.taken for record in started), sum(record.slots for record in started)
        starting = f", {len(running) - len(started)} of them starting" if len(started) < len(running) else ""
        parts.insert(0, f"{len(running)} running{starting}, {busy} of {count(slots, 'slot')} busy")
    return "; ".join(parts)
