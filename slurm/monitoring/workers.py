"""The workers of a study on Slurm: those in the queue, their slots, and the GPU-hours of free slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from mmkd.formatting import count
from mmkd.records import WorkerRecord, find_record
from mmkd.rundir import Root, WorkerDir
from slurm.accounting import QueuedJob


def worker_records(root: Root, study: str | None = None) -> Iterator[WorkerRecord]:
    """Yield the last records of all workers under a root, past ones included; of one study or of all."""
    for path in root.workers.glob("*/worker.json"):
        record = find_record(WorkerDir(path.parent).record, WorkerRecord)
        if record is not None and study in (None, record.study):
            yield record


def idle_gpu_seconds(root: Root, study: str | None = None) -> float:
    """GPU-seconds of workers' free slots, which no trial's attempt counts."""
    return sum(record.idle_gpu_seconds for record in worker_records(root, study))


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
