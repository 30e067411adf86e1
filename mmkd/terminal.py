"""Text that is safe to print on a terminal."""

from __future__ import annotations

import re
import sys

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, what turns the direction of writing, and what no encoding has."""


def printable(text: str) -> str:
    r"""`text`, in which what would steer a terminal (colours, titles, direction of writing) is spelled out: `\u001b`.

    JSON stays JSON and means the same.
    """
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def is_plain(text: str) -> bool:
    """Whether `text` is one line that a terminal may be given as it is, and not empty."""
    return bool(text.strip()) and not re.search(r"[\t\n]", text) and not _STEERING.search(text)


def one_line(text: object) -> str:
    """`text` as one line that a terminal may be given as it is; line breaks become semicolons."""
    return printable("; ".join(line.strip() for line in str(text).splitlines() if line.strip()))


def forgive_encoding() -> None:
    """Let standard output show `?` for what its encoding lacks, instead of failing at it."""
    if hasattr(sys.stdout, "reconfigure"):  # not where a test or a notebook has put something else in its place
        sys.stdout.reconfigure(errors="replace")
