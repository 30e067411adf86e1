"""The state of a trial, from its directory and the rules of `mmkd.failures`.

Shared by the controller, the monitor, --status, doctor, tables and figures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum

from mmkd.attempts import Attempt, current_attempt, last_attempt, read_attempt, read_attempts
from mmkd.failures import AVOIDED, LONGEST_PAUSE, MOST_MEMORY, RULES, Failure, Rule
from mmkd.formatting import count
from mmkd.rundir import TrialDir


class State(StrEnum):
    """State of a trial by its directory. Only its backend knows if a job still lives.

    A stop file changes no state: the trial ends as pruned at its next epoch, in this attempt or in a retry.
    """

    SAMPLED = "sampled"
    """No attempt yet."""
    PENDING = "pending"
    """Its last attempt was announced, and its job has not been heard of."""
    RUNNING = "running"
    """Its last attempt has started, and nobody has said that it ended."""
    RETRY_DUE = "retry_due"
    """Its last attempt ended without a result; the next one resumes from its checkpoint."""
    FAILED = "failed"
    """Its last attempts ended without a result, and there are no retries left."""
    SUPERSEDED = "superseded"
    """A final run without a result, whose row has another winner now."""
    FINISHED = "finished"
    """There is a result: complete, pruned or diverged."""

    @property
    def is_due(self) -> bool:
        """True if the controller submits an attempt."""
        return self in (State.SAMPLED, State.RETRY_DUE)

    @property
    def is_live(self) -> bool:
        """True if there is, or may be, a job that nobody has seen end."""
        return self in (State.PENDING, State.RUNNING)


def trial_state(directory: TrialDir, attempts: Sequence[Attempt] | None = None, *, launch: str = "") -> State:
    """The state of a trial: one function of its directory.

    Args:
        directory: the trial's.
        attempts: its attempts, where the caller has read them.
        launch: the word of the present launch, whose controller counts its own attempts alone: it retries final runs
            and teachers that failed in an earlier launch. All other readers count all attempts. A failed tuning trial
            was reported to Optuna; --retry failed alone retries it, under a new number.
    """
    if directory.result.exists():
        return State.FINISHED
    number = current_attempt(directory)
    if number > 0:
        last = next((a for a in attempts or () if a.number == number), None) or read_attempt(directory, number)
        if not last.end:
            return State.RUNNING if last.is_started else State.PENDING
    if directory.superseded.exists():
        return State.SUPERSEDED
    if number == 0:
        return State.SAMPLED
    known = read_attempts(directory) if attempts is None else attempts
    return State.FAILED if has_no_retries([a for a in known if a.number <= number], launch) else State.RETRY_DUE


def decide(directory: TrialDir, launch: str) -> State:
    """Return the state that the controller of a launch acts on: submit what is due, watch what is live.

    A trial whose job has recorded its end counts as running until the controller has recorded end and costs.
    """
    return State.RUNNING if is_unnoted(directory) else trial_state(directory, launch=launch)


def is_unnoted(directory: TrialDir) -> bool:
    """True if the last attempt's job has written its record, and no controller has recorded end and costs yet."""
    last = last_attempt(directory)
    return last.is_announced and not last.submitted.end and directory.job_record(last.number).exists()


def has_no_retries(attempts: Sequence[Attempt], launch: str = "") -> bool:
    """True if as many attempts as the last one's failure allows have ended alike, of those of a `launch`."""
    alike = fruitless(attempts, launch)
    limit = RULES[Failure(str(alike[-1].end))].limit if alike else None
    return limit is not None and len(alike) >= limit


def why_failed(attempts: Sequence[Attempt], launch: str = "") -> str:
    """The class, number and last message of the attempts after which there are no retries left."""
    alike = fruitless(attempts, launch)
    times = count(len(alike), "attempt")
    return f"{alike[-1].end} in {times}: {alike[-1].message or 'no message'}" if alike else "no attempt"


def fruitless(attempts: Sequence[Attempt], launch: str = "") -> list[Attempt]:
    """The last attempts of a launch ("": of all) that ended in the same failure with nothing gained after the first.

    Gained is an epoch, or the steps of one too long for a time limit, which a job has saved that was asked to end.
    Attempts whose trial never began count among themselves alone.
    """
    if attempts and attempts[-1].end != Failure.NOT_STARTED:
        attempts = [attempt for attempt in attempts if attempt.end != Failure.NOT_STARTED]
    alike: list[Attempt] = []
    for attempt in reversed(attempts):
        if (launch and attempt.submitted.launch != launch) or attempt.end not in set(Failure):
            break
        gained = attempt.ran.end in (Failure.PREEMPTED, Failure.TIMEOUT)
        if gained or (alike and (attempt.end, attempt.submitted.epochs) != (alike[0].end, alike[0].submitted.epochs)):
            break
        alike.insert(0, attempt)
    return alike


def pause_left(directory: TrialDir, launch: str) -> float:
    """Return the seconds until the controller of a launch may submit the next attempt of a trial."""
    alike = fruitless(read_attempts(directory), launch)
    if len(alike) < 2:
        return 0.0
    pause = min(RULES[Failure(str(alike[-1].end))].pause * 2.0 ** (len(alike) - 2), LONGEST_PAUSE)
    left = (alike[-1].submitted.ended or 0.0) + pause - time.time()
    return min(max(left, 0.0), pause)  # the clock may have been set back


def next_resources(attempts: Sequence[Attempt]) -> tuple[float, tuple[str, ...]]:
    """The factor on the memory of a trial's next attempt, and the nodes that it avoids, after these attempts."""
    memory, nodes = 1.0, []
    for attempt in attempts:
        rule = RULES[Failure(attempt.end)] if attempt.end in set(Failure) else Rule()
        memory *= rule.memory
        if rule.avoids_node:
            nodes.append(attempt.submitted.node or attempt.ran.node)
    avoided = dict.fromkeys(node for node in reversed(nodes) if node)
    return min(memory, MOST_MEMORY), tuple(avoided)[:AVOIDED]
