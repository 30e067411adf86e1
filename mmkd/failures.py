"""The classes of failures, and the retries that each leads to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Failure(StrEnum):
    """Reason for an attempt without a result; decides what happens next. A diverged trial has a result."""

    PREEMPTED = "preempted"
    TIMEOUT = "timeout"
    NODE_FAIL = "node_fail"
    NOT_STARTED = "not_started"
    """Its job ended before the trial began: a setup line, a mount, a driver or a prolog failed on its node."""
    STORAGE = "storage"
    """The file system that all nodes share is full, or the user's quota is."""
    OUT_OF_MEMORY = "out_of_memory"
    ERROR = "error"
    BUG = "bug"
    """An error in the code of a method or a network, which every attempt would meet again."""
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Rule:
    """Retry after a failure: at most `limit` attempts in a row may end so with nothing gained (None: any number).

    The next attempt gets `memory` times as much for each earlier failure of this class, and `avoids_node`: not the
    nodes that failed. From the second such failure in a row on it begins `pause` seconds after the last one's end,
    doubled each time up to `LONGEST_PAUSE`: a full disk may have room again by then, and another node may be free.
    """

    limit: int | None = None
    memory: float = 1.0
    avoids_node: bool = False
    pause: float = 0.0


RULES = {
    Failure.PREEMPTED: Rule(),
    Failure.CANCELLED: Rule(),
    Failure.TIMEOUT: Rule(limit=5),
    Failure.NODE_FAIL: Rule(limit=5, avoids_node=True, pause=5.0),
    Failure.NOT_STARTED: Rule(limit=10, avoids_node=True, pause=5.0),  # of one trial alone: its own files are the cause
    Failure.STORAGE: Rule(limit=10, pause=15.0),
    Failure.OUT_OF_MEMORY: Rule(limit=3, memory=2.0),  # the third gets as much as is given by default
    Failure.ERROR: Rule(limit=2),
    Failure.BUG: Rule(limit=1),
}
MOST_MEMORY = 64.0
"""The largest factor; the site's limit on memory is mostly below it."""
LONGEST_PAUSE = 600.0
AVOIDED = 2
"""So many nodes are avoided, the ones that failed last."""
