"""Faults of `faults.py` that damage files, or their times; see fault_kinds.py for what each gets and returns."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from pathlib import Path

from fault_study import AttackedStudy
from survival import Stuck, wait_for

FIRST_SECONDS = 120.0
"""Until a study's first trial is finished, at most."""


def torn_lines(study: AttackedStudy, chance: random.Random) -> str:
    """The last line of every line file is cut at a random byte, after a loss of power."""
    study.end_everything()
    patterns = ("**/metrics.jsonl", "rows/*/journal.log", "rows/*/finished.jsonl")
    files = [f for pattern in patterns for f in study.files(pattern) if f.stat().st_size]
    for file in files:
        content = file.read_bytes()
        begin = content.rfind(b"\n", 0, len(content) - 1) + 1
        os.truncate(file, chance.randrange(begin, len(content)))
    return f"{len(files)} files" if files else ""


def journal_cut(study: AttackedStudy, chance: random.Random) -> str:
    """A journal loses its last lines, perhaps all, and a part of the one before."""
    journal = _choose(study, chance, "rows/*/journal.log")
    if journal is None:
        return ""
    length = chance.randrange(journal.stat().st_size + 1)
    os.truncate(journal, length)
    return f"{study.name(journal)} cut to {length} bytes"


def finished_damaged(study: AttackedStudy, chance: random.Random) -> str:
    """A row's list of finished trials is cut, gets a flipped bit or a line of garbage, or is removed."""
    pattern = "rows/*/finished.jsonl"
    with suppress(Stuck):
        wait_for("a finished trial", lambda: study.files(pattern) or study.is_done(), FIRST_SECONDS)
    if not study.files(pattern):
        return ""
    file = _choose(study, chance, pattern)
    assert file is not None
    how = chance.choice(("cut", "flip", "garbage", "remove"))
    if how == "cut":
        return _cut(study, chance, pattern)
    if how == "flip":
        return _flip(study, chance, pattern)
    if how == "remove":
        file.unlink()
        return f"{study.name(file)} removed"
    lines = file.read_bytes().splitlines(keepends=True)
    lines.insert(chance.randrange(len(lines) + 1), chance.randbytes(chance.randrange(1, 2000)) + b"\n")
    file.write_bytes(b"".join(lines))
    return f"{study.name(file)} got a line of garbage"


def _choose(study: AttackedStudy, chance: random.Random, pattern: str) -> Path | None:
    """One of the study's files, after an end of all its processes."""
    study.end_everything()
    files = study.files(pattern)
    return chance.choice(files) if files else None


def _cut(study: AttackedStudy, chance: random.Random, pattern: str) -> str:
    file = _choose(study, chance, pattern)
    if file is None:
        return ""
    size = file.stat().st_size
    length = chance.randrange(size)
    os.truncate(file, length)
    return f"{study.name(file)} cut to {length} of {size} bytes"


def _flip(study: AttackedStudy, chance: random.Random, pattern: str) -> str:
    file = _choose(study, chance, pattern)
    if file is None:
        return ""
    content = bytearray(file.read_bytes())
    bit = chance.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return f"{study.name(file)}, bit {bit} of {8 * len(content)}"


def checkpoint_truncated(study: AttackedStudy, chance: random.Random) -> str:
    """A checkpoint is cut."""
    return _cut(study, chance, "**/checkpoint.pt")


def checkpoint_flipped(study: AttackedStudy, chance: random.Random) -> str:
    """A single bit of a checkpoint changes."""
    return _flip(study, chance, "**/checkpoint.pt")


def result_truncated(study: AttackedStudy, chance: random.Random) -> str:
    """A result is cut, of a trial that may have been reported long ago."""
    return _cut(study, chance, "**/result.h5")


def result_flipped(study: AttackedStudy, chance: random.Random) -> str:
    """A single bit of a result changes."""
    return _flip(study, chance, "**/result.h5")


def teacher_flipped(study: AttackedStudy, chance: random.Random) -> str:
    """A single bit of a teacher's weights changes."""
    return _flip(study, chance, "teachers/*/weights.pt")


def clock_jump(study: AttackedStudy, chance: random.Random) -> str:
    """The times of all files jump by hours, forward or back, while everything runs."""
    hours, count = chance.choice((-1, 1)) * chance.uniform(1, 12), 0
    if not study.controller():
        return ""
    for file in study.files("**/*"):
        with suppress(FileNotFoundError):
            changed = file.stat().st_mtime + 3600 * hours
            os.utime(file, (changed, changed))
            count += 1
    return f"{count} files by {hours:+.1f} h" if count else ""
