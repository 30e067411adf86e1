"""What a trial's attempts say: what to do with it next, and what it has cost. Torch is not needed for that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mmkd.attempts import Attempt, current_attempt, read_attempts
from mmkd.config import digest
from mmkd.files import read_json
from mmkd.rundir import Root, TrialDir
from mmkd.trial_state import Failure, trial_state
from mmkd.trial_state import State as TrialState

LIMITS = {Failure.ERROR: 2, Failure.OUT_OF_MEMORY: 3, Failure.NODE_FAIL: 5, Failure.TIMEOUT: 5}
"""So many attempts in a row may end like this with nothing gained; what is not named may go on for ever.

Out of memory: each asks for twice as much, the third for as much as is given by default.
"""


class Verdict(StrEnum):
    """What a trial needs."""

    NOTHING = "nothing"
    SUBMIT = "submit"
    GIVE_UP = "give up"
    WATCH = "watch"


@dataclass(frozen=True)
class Decision:
    """A verdict and, for giving up, why."""

    verdict: Verdict
    reason: str = ""


def decide(directory: TrialDir, launched: float) -> Decision:
    """What the trial in `directory` needs, as its files say; whether a job lives, its backend knows."""
    state = trial_state(directory)
    if state in (TrialState.RUNNING, TrialState.SUBMITTED) or is_unnoted(directory):
        return Decision(Verdict.WATCH)
    if state is TrialState.FINISHED:
        return Decision(Verdict.NOTHING)
    alike = fruitless_alike([a for a in read_attempts(directory) if a.submitted.get("submitted", 0.0) >= launched])
    if alike and len(alike) >= LIMITS.get(Failure(str(alike[-1].end)), len(alike) + 1):
        last = alike[-1]
        times = f"{len(alike)} attempts" if len(alike) > 1 else "1 attempt"
        return Decision(Verdict.GIVE_UP, f"{last.end} in {times}: {last.message or 'no message'}")
    return Decision(Verdict.SUBMIT)


def is_unnoted(directory: TrialDir) -> bool:
    """Whether the last attempt's job told something, and no controller has noted its end and its costs yet."""
    number = current_attempt(directory)
    submitted = read_json(directory.controller_record(number)) or {}
    return bool(submitted) and "end" not in submitted and directory.job_record(number).exists()


def fruitless_alike(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The last attempts that all ended in the same failure with nothing gained after the first of them.

    Gained is an epoch, or the steps of one too long for a time limit, which a job has saved that was asked to end.
    """
    alike: list[Attempt] = []
    for attempt in reversed(attempts):
        if attempt.end not in set(Failure) or (alike and attempt.end != alike[0].end):
            break
        if attempt.ran.get("end") in (Failure.PREEMPTED, Failure.TIMEOUT):
            break
        if alike and _epochs(attempt) != _epochs(alike[0]):
            break
        alike.insert(0, attempt)
    return alike


def job_tag(root: Root) -> str:
    """What the names of all jobs of a root begin with."""
    return f"mmkd-{digest(str(root.path))[:6]}"


def controller_job(root: Root, study: str) -> str:
    """The name of the job that a study's detached controller runs in."""
    return f"{job_tag(root)}.controller.{study}"


def gpu_seconds_of(directories: Iterable[TrialDir]) -> float:
    """GPU-seconds that ended attempts of trials have spent, as their records say."""
    attempts = (attempt for directory in directories for attempt in read_attempts(directory))
    return sum(float(attempt.submitted.get("gpu_seconds", 0.0)) for attempt in attempts)


def _epochs(attempt: Attempt) -> int:
    return int(attempt.submitted.get("epochs", 0))
