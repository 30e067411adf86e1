"""Format numbers, times, names and columns for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

BARS = "▁▂▃▄▅▆▇█"


def count(number: int, what: str) -> str:
    """`1 trial`, `2,000 trials`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def clock(seconds: float) -> str:
    """Seconds as Slurm writes them: 4:05, 1:02:03, 2-03:04:05."""
    whole = int(max(seconds, 0))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}-{hours:02}:{minutes:02}:{whole % 60:02}"
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 40 s, 12 min, 3 h 20 min, 2 d 5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def remaining(work: float, slots: float, chains: Iterable[float] = ()) -> float:
    """Seconds until all is done: `work` slot-seconds on `slots`, but no less than the longest of `chains`.

    A chain is the seconds of runs that must follow one another: a teacher, its trials, the final runs of the winner.
    """
    return max(work / slots, *chains, 0.0)


def figure(value: float | None) -> str:
    """A metric in four digits; empty where there is none."""
    return "" if value is None else f"{value:.4f}" if abs(value) < 100 else f"{value:.4g}"


def significant(value: float, digits: int = 2) -> str:
    """A number in so many significant digits, without an exponent or zeros at its end: 207 -> 210, 0.304 -> 0.3."""
    return f"{float(f'{value:.{digits}g}'):.12g}"


def percent(share: float | None) -> str:
    """A share of 1 in per cent; empty where there is none."""
    return "" if share is None else f"{100 * share:.1f}"


def short_path(path: Path, room: int) -> str:
    """A path's last directories, as many as fit."""
    parts = path.parts
    shorter = ("…/" + "/".join(parts[i:]) for i in range(1, len(parts)))
    return next((text for text in (str(path), *shorter) if len(text) <= room), "")


def shorten(text: str, width: int) -> str:
    """A name in at most `width` characters: its middle goes, because names differ at their ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}" if width > 0 else ""


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve in at most `width` characters, each the mean of as many values; flat where all are equal."""
    width = min(width, len(values))
    cuts = [round(i * len(values) / width) for i in range(width + 1)] if width else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    if low == high:
        return BARS[3] * len(means)
    return "".join(BARS[round((mean - low) / (high - low) * (len(BARS) - 1))] for mean in means)


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


def replicate_title(name: str, replicate: int) -> str:
    """`crd`, `crd r3`: a row's name, with its replicate if it is not the first."""
    return f"{name} r{replicate}" if replicate else name


def replicates_title(name: str, replicates: Sequence[int]) -> str:
    """`crd`, `crd r3`, `crd r0, r3, r4`: a row's name, with those of its replicates that are meant."""
    if len(replicates) == 1:
        return replicate_title(name, replicates[0])
    return f"{name} {shortened([f'r{replicate}' for replicate in replicates], ', ')}"


def shortened(parts: Sequence[str], separator: str = "; ", most: int = 4) -> str:
    """Parts in one line, the first of them if there are many, with the number of others."""
    more = [f"and {len(parts) - most} more"] if len(parts) > most else []
    return separator.join([*parts[:most], *more])


def columns(lines: Iterable[Sequence[str]]) -> list[str]:
    """Lines of cells under each other, the first column left-aligned and the others right-aligned."""
    table = [tuple(line) for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in table
    ]
