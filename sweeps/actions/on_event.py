"""Implement --on-event: run a user's command when a study ends, fails or needs a person."""

from __future__ import annotations

import shlex
import subprocess
import sys

from mmkd.errors import UserError
from mmkd.terminal import one_line, printable

SECONDS = 30.0
"""Time limit of the command."""
ENDED, FAILED, ATTENTION = "ended", "failed", "attention"
"""The events: all rows are done; something failed that is not retried; a person has to act before it continues."""
FIELDS = ("event", "study", "message")


def check_command(command: str) -> list[str]:
    """Split a command into its words.

    Raises:
        UserError: a quote is not closed, or it has no words.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"--on-event {command!r}: {error}; quote as in a shell") from None
    if not words:
        raise UserError("--on-event: no command; see --help")
    return words


class Notifier:
    """Runs the command of --on-event; without one it does nothing.

    Args:
        command: its words may contain {event}, {study} and {message}; standard input gets the message too.
        study: the study's name.
    """

    def __init__(self, command: str | None, study: str) -> None:
        self._words = check_command(command) if command else []
        self._study = study

    def __call__(self, event: str, message: object) -> None:
        """Tell of an event. A command that fails or takes too long is reported, and does no harm."""
        if not self._words:
            return
        values = {"event": event, "study": self._study, "message": one_line(message)}
        words = [_fill(word, values) for word in self._words]  # no shell: nothing in a message is a command
        try:
            done = subprocess.run(
                words, input=f"{values['message']}\n", capture_output=True, text=True, timeout=SECONDS, check=False
            )
            problem = f"exit code {done.returncode}: {one_line(done.stderr)}" if done.returncode else ""
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            problem = one_line(error)
        if problem:
            print(printable(f"warning: --on-event {self._words[0]}: {problem}"), file=sys.stderr, flush=True)


def _fill(word: str, values: dict[str, str]) -> str:
    """Replace the fields of a word in one pass: a message that contains {study} stays as it is."""
    for name in FIELDS:
        word = word.replace(f"{{{name}}}", f"\0{name}\0")
    parts = word.split("\0")
    return "".join(values.get(part, part) if number % 2 else part for number, part in enumerate(parts))
