"""Signals that ask a run to end. Imports nothing slow, so that they can be heard from the first moment on."""

from __future__ import annotations

import signal

ASK_TO_END = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
"""A preemption, a cancellation; Slurm's word before a time limit; a user at the keyboard."""


def listen() -> list[int]:
    """Hear the signals from now on; the list is filled as they come."""
    received: list[int] = []
    for number in ASK_TO_END:
        signal.signal(number, lambda number, frame: received.append(number))
    return received
