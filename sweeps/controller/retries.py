"""A trial's state as its controller acts on it, what its attempts cost, and the names of its jobs."""

from __future__ import annotations

from collections.abc import Iterable

from mmkd.attempts import current_attempt, read_attempt, read_attempts
from mmkd.config import digest
from mmkd.rundir import Root, TrialDir
from mmkd.trial_state import State, trial_state


def decide(directory: TrialDir, launched: float) -> State:
    """The state that a controller launched at `launched` acts on: submit what is due, watch what is live.

    A trial whose job has told its end counts as running until that end and its costs are noted.
    """
    return State.RUNNING if is_unnoted(directory) else trial_state(directory, since=launched)


def is_unnoted(directory: TrialDir) -> bool:
    """True if the last attempt's job told something, and no controller has noted its end and its costs yet."""
    last = read_attempt(directory, current_attempt(directory))
    return bool(last.submitted) and "end" not in last.submitted and directory.job_record(last.number).exists()


def job_tag(root: Root) -> str:
    """The beginning of the names of all jobs of a root."""
    return f"mmkd-{digest(str(root.path))[:6]}"


def controller_job(root: Root, study: str) -> str:
    """The name of the job that a study's detached controller runs in."""
    return f"{job_tag(root)}.controller.{study}"


def gpu_seconds_of(directories: Iterable[TrialDir]) -> float:
    """GPU-seconds that ended attempts of trials have spent, as their records say."""
    attempts = (attempt for directory in directories for attempt in read_attempts(directory))
    return sum(float(attempt.submitted.get("gpu_seconds", 0.0)) for attempt in attempts)
