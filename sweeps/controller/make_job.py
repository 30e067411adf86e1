"""Make the job of a trial's attempt."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from mmkd.attempts import read_attempts
from mmkd.trial_state import next_resources
from slurm.backend import Job
from sweeps.controller.tasks import Task


def make_job(
    task: Task, attempt: int, tag: str, shared: Mapping[str, str], excluded: Sequence[str] = (), code: str = ""
) -> Job:
    """Make the job of a task's attempt, with the memory that earlier failures require.

    Args:
        task: what to run.
        attempt: its number.
        tag: the beginning of the job's name.
        shared: variables of all jobs.
        excluded: nodes to avoid besides those of earlier failures.
        code: see `Jobs`.
    """
    threads = str(task.config.threads)
    environment = {**shared, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if task.config.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    directory = str(task.directory.path.absolute())
    sent_with = ("--code", code) if code else ()
    command = (sys.executable, "-m", "mmkd.trial", directory, "--attempt", str(attempt), *sent_with)
    attempts = read_attempts(task.directory)
    memory, avoid = next_resources(attempts)
    failures = tuple(str(attempt.end) for attempt in attempts if attempt.end not in (None, "complete"))
    avoid = tuple(dict.fromkeys((*avoid, *excluded)))
    name, log = f"{tag}.{task.name}.a{attempt}", task.directory.log(attempt)
    return Job(name, command, log, environment, memory=memory, avoid=avoid, failures=failures)
