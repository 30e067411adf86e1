"""Text that is safe to print on a terminal."""

from __future__ import annotations

import re
import sys

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and line feed, marks of writing direction, and what no encoding has."""


def printable(text: str) -> str:
    r"""Spell out what would steer a terminal (colours, titles, direction of writing) in `text`: `\u001b`.

    JSON stays JSON and means the same.
    """
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def is_plain(text: str) -> bool:
    """True if `text` is one line, not empty, and safe to print as it is."""
    return bool(text.strip()) and not re.search(r"[\t\n]", text) and not _STEERING.search(text)


def one_line(text: object) -> str:
    """Turn `text` into one line that is safe to print; line breaks become semicolons."""
    return printable("; ".join(line.strip() for line in str(text).splitlines() if line.strip()))


def forgive_encoding() -> None:
    """Let standard output show `?` for characters that its encoding lacks, instead of failing."""
    if hasattr(sys.stdout, "reconfigure"):  # not if a test or a notebook has replaced it
        sys.stdout.reconfigure(errors="replace")
