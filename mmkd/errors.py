"""The exception for users' mistakes, which commands print in one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from traceback import extract_tb


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
    hint = did_you_mean(value, known)
    raise UserError(f"unknown {what} {value!r}{hint and '; '}{hint} (choices: {', '.join(known) or 'none'})")


def did_you_mean(value: str, choices: Iterable[str], prefix: str = "", *, likeness: float = 0.5) -> str:
    """Ask `did you mean a or b?` after a mistyped value, each choice with `prefix`; "" if none is near."""
    near = [f"{prefix}{choice}" for choice in nearest(value, choices, likeness)]
    return f"did you mean {' or '.join(near)}?" if near else ""


def nearest(value: str, choices: Iterable[str], likeness: float = 0.5) -> list[str]:
    """Return up to three choices that resemble a mistyped value, the nearest first; capitals and dashes do not matter.

    Choices that begin with it take precedence, and those that end with it after a dot: mem is slurm.mem. Last come
    those that it begins with: cpus_per_task is cpus. `likeness` is that of `difflib.get_close_matches`.
    """
    known = {_plain(choice): choice for choice in sorted(set(choices), key=lambda name: (len(name), name))}
    typed = _plain(value)
    longer = [name for name in known if name.startswith(typed) or name.endswith(f".{typed}")] if len(typed) > 1 else []
    shorter = [name for name in known if typed.startswith(f"{name}_")]
    return [known[n] for n in longer[:3] or get_close_matches(typed, known, n=3, cutoff=likeness) or shorter]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def where_raised(error: BaseException, directories: Iterable[str | Path]) -> tuple[str, int]:
    """Return file and line of the innermost frame in one of `directories`, or else of the innermost frame."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno or 0
    frames = [(frame.filename, frame.lineno or 0) for frame in extract_tb(error.__traceback__)]
    inside = [frame for frame in frames if any(Path(frame[0]).is_relative_to(path) for path in directories)]
    return (inside or frames)[-1]


@contextmanager
def errors_about(subject: str) -> Iterator[None]:
    """Prefix the message of every UserError in the block with `subject`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{subject}: {error}") from error
