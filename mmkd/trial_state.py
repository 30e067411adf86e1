"""The state of a trial, from its directory."""

from __future__ import annotations

from enum import StrEnum

from mmkd.attempts import Attempt, current_attempt
from mmkd.files import read_json
from mmkd.rundir import TrialDir


class Failure(StrEnum):
    """Why an attempt ended without a result; decides what happens next."""

    PREEMPTED = "preempted"
    TIMEOUT = "timeout"
    NODE_FAIL = "node_fail"
    OUT_OF_MEMORY = "out_of_memory"
    ERROR = "error"
    CANCELLED = "cancelled"


class State(StrEnum):
    """Where a trial stands, by its directory alone. Whether a job still lives is for its backend to say."""

    ABSENT = "absent"
    """No configuration yet."""
    CREATED = "created"
    """Never submitted."""
    SUBMITTED = "submitted"
    """Its last attempt has been announced and has not been heard of."""
    RUNNING = "running"
    """Its last attempt has started and has not said that it ended."""
    FAILED = "failed"
    """Its last attempt ended without a result."""
    FINISHED = "finished"
    """There is a result."""


def trial_state(directory: TrialDir) -> State:
    """The state of a trial: one function of its directory."""
    if directory.result.exists():
        return State.FINISHED
    if not directory.config.exists():
        return State.ABSENT
    number = current_attempt(directory)
    if number == 0:
        return State.CREATED
    attempt = Attempt(
        number, read_json(directory.controller_record(number)) or {}, read_json(directory.job_record(number)) or {}
    )
    if attempt.end:
        return State.FAILED
    return State.RUNNING if attempt.ran else State.SUBMITTED
