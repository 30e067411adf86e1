"""How busy slots were, how busy they could have been, and where the rest of their time went."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Slept:
    """A trial that slept on a slot; times in seconds since 1970."""

    number: int
    slot: str
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it slept."""
        return self.ended - self.began


@dataclass(frozen=True)
class Traced(Slept):
    """A trial of ours, in the order in which it goes: `began` and `ended` come after `script`."""

    sampled: float
    announced: float
    queued: float
    """sbatch returned, or a worker's inbox had it."""
    script: float
    """The first line of the job's script, or of the process that a worker forked."""
    written: float
    """The job said that it ended."""
    noticed: float
    """The controller had taken note of that."""


def draw_lengths(trials: int, shortest: float, longest: float, seed: int) -> list[float]:
    """Seconds of each trial, by its number."""
    draw = random.Random(seed)
    return [draw.uniform(shortest, longest) for _ in range(trials)]


def best_possible(lengths: Sequence[float], slots: int) -> float:
    """The share of time that slots are busy if each free slot begins the next trial, in this order, at once."""
    free = [0.0] * slots
    for length in lengths:
        heapq.heapreplace(free, free[0] + length)
    return sum(lengths) / (slots * max(free))


def upper_bound(lengths: Sequence[float], slots: int) -> float:
    """What no schedule exceeds, even one that knows all lengths and may choose the order."""
    return sum(lengths) / (slots * max(max(lengths), sum(lengths) / slots))


def share_busy(first: float, trials: Sequence[Slept], slots: int) -> float:
    """Seconds slept / (slots x seconds from the first submission to the end of the last sleep)."""
    return sum(t.seconds for t in trials) / (slots * (max(t.ended for t in trials) - first))


def lost_time(first: float, trials: Sequence[Traced], slots: int) -> dict[str, float]:
    """Where the slots' time went, as shares that sum to 1.

    A slot is free once its job has said that it ended. The time until the next job's script begins is the controller's
    as long as that job was not in the queue, and then Slurm's, or the worker's.
    """
    last = max(t.ended for t in trials)
    spent = dict.fromkeys(("asleep", "nothing queued", "queued", "start", "result", "no trial left"), 0.0)
    for _, chain in groupby(sorted(trials, key=lambda t: (t.slot, t.began)), key=lambda t: t.slot):
        free = first
        for t in chain:
            queued = max(t.queued, free)
            spent["nothing queued"] += queued - free
            spent["queued"] += t.script - queued
            spent["start"] += t.began - t.script
            spent["asleep"] += t.seconds
            free = min(t.written, last)
            spent["result"] += free - t.ended
        spent["no trial left"] += last - free
    spent["no trial left"] += (slots - len({t.slot for t in trials})) * (last - first)
    return {what: seconds / (slots * (last - first)) for what, seconds in spent.items()}


def steps(trials: Sequence[Traced]) -> dict[str, list[float]]:
    """Seconds of each step of each trial; waiting in the queue is mostly waiting for a slot."""
    return {
        "sample, make its directory": [t.announced - t.sampled for t in trials],
        "submit": [t.queued - t.announced for t in trials],
        "wait in the queue": [t.script - t.queued for t in trials],
        "start": [t.began - t.script for t in trials],
        "sleep": [t.seconds for t in trials],
        "write the result": [t.written - t.ended for t in trials],
        "the controller notices": [t.noticed - t.written for t in trials],
    }
