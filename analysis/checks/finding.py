"""Findings of checks: their kinds, and the words that they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

SHOWN = 4
"""So many values, files or runs are named in one warning, the others counted."""

REMARK = "remark"
"""Kind of a finding that is worth knowing, but no problem: the patch of what was not committed is kept."""

EXTENDED = "extended"
"""Kind of the remark that an extended row has another winner: a note of the table, not a warning."""


@dataclass(frozen=True)
class Finding:
    """One problem of a study; `kind` groups it."""

    kind: str
    text: str


def first_few(words: Iterable[str]) -> str:
    """The first few words, and how many more there are."""
    listed = list(words)
    more = len(listed) - SHOWN
    return ", ".join(listed[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def unequal(kind: str, what: str, titles: Sequence[str], values: Sequence[str]) -> Iterator[Finding]:
    """One finding where the rows' values (empty: not known) differ."""
    found: dict[str, list[str]] = {}
    for title, value in zip(titles, values, strict=True):
        found.setdefault(value, []).append(title)
    found.pop("", None)
    if len(found) > 1:
        yield Finding(kind, f"{what} are unequal: " + "; ".join(f"{key}: {first_few(found[key])}" for key in found))


def names_of(directories: Iterable[str]) -> str:
    """The first few directories, without that of their row."""
    return first_few(directory.rpartition("/")[2] for directory in directories)
