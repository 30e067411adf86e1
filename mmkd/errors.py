"""The exception for users' mistakes, which commands print in one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that the user can fix: the message names the file, the key, the value and the remedy.

    Commands print it as one line on standard error and exit with code 2.
    """


def choose(what: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        UserError: naming `what`, the value, the nearest choices and all choices.
    """
    known = sorted(choices)
    if value in known:
        return value
    near = get_close_matches(value, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"unknown {what} {value!r}{hint} (choices: {', '.join(known) or 'none'})")


@contextmanager
def errors_about(subject: str) -> Iterator[None]:
    """Prefix the message of every UserError in the block with `subject`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{subject}: {error}") from error
