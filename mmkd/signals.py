"""Signals that ask a run to end. Imports nothing slow, so that they are received from the start."""

from __future__ import annotations

import signal

ASK_TO_END = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
"""A preemption or cancellation; Slurm's warning before a time limit; Ctrl-C."""


def listen() -> list[int]:
    """Collect these signals from now on in the list that is returned."""
    received: list[int] = []
    for number in ASK_TO_END:
        signal.signal(number, lambda number, frame: received.append(number))
    return received
