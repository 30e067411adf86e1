"""Decide on retries: a trial's state for its controller, its last attempt, its costs, and the names of its jobs."""

from __future__ import annotations

from collections.abc import Iterable

from mmkd.attempts import Attempt, current_attempt, read_attempt, read_attempts
from mmkd.config import digest
from mmkd.rundir import Root, TrialDir
from mmkd.trial_state import State, trial_state
from slurm.backend import Handle


def decide(directory: TrialDir, launched: float) -> State:
    """Return the state that a controller launched at `launched` acts on: submit what is due, watch what is live.

    A trial whose job has recorded its end counts as running until the controller has recorded end and costs.
    """
    return State.RUNNING if is_unnoted(directory) else trial_state(directory, since=launched)


def is_unnoted(directory: TrialDir) -> bool:
    """True if the last attempt's job has written its record, and no controller has recorded end and costs yet."""
    last = last_attempt(directory)
    return bool(last.submitted) and "end" not in last.submitted and directory.job_record(last.number).exists()


def last_attempt(directory: TrialDir) -> Attempt:
    """Read the records of a trial's current attempt."""
    return read_attempt(directory, current_attempt(directory))


def handle_of(attempt: Attempt) -> Handle:
    """Return the handle of an attempt's job, without an id where none was recorded."""
    return Handle(str(attempt.submitted.get("name", "")), str(attempt.submitted.get("job", "")))


def job_tag(root: Root) -> str:
    """Return the beginning of the names of all jobs of a root."""
    return f"mmkd-{digest(str(root.path))[:6]}"


def controller_job(root: Root, study: str) -> str:
    """Return the name of the job of a study's detached controller."""
    return f"{job_tag(root)}.controller.{study}"


def gpu_seconds_of(directories: Iterable[TrialDir]) -> float:
    """Sum the GPU-seconds of the trials' ended attempts."""
    attempts = (attempt for directory in directories for attempt in read_attempts(directory))
    return sum(float(attempt.submitted.get("gpu_seconds", 0.0)) for attempt in attempts)
