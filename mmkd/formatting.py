"""Numbers and columns in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def count(number: int, what: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`, `2.1 days`."""
    for limit, unit, name in ((100, 1, "s"), (100 * 60, 60, "min"), (72 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{1 if name == 'h' else 0}f} {name}"
    return f"{seconds / 86400:.1f} days"


def size(number: float) -> str:
    """Bytes as `0.4 kB`, `12.0 MB`, `3.1 GB`."""
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 1000:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.1f} TB"


def teacher_label(branch: object, noun: str = "teacher") -> str:
    """`teacher`, `teacher, video branch`; a complete teacher has no branch: None, or NaN from a frame."""
    return f"{noun}, {branch} branch" if isinstance(branch, str) else noun


def columns(lines: Iterable[Sequence[str]]) -> list[str]:
    """Lines of cells under each other, the first column left-aligned and the others right-aligned."""
    table = [tuple(line) for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in table
    ]
