"""Looks at a root again and again, and reads only what may have changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmkd.config import SEEDS_PER_REPLICATE
from mmkd.errors import UserError
from mmkd.files import read_json
from mmkd.finished import line_name, read_finished
from mmkd.formatting import replicate_title, teacher_label
from mmkd.records import FinishedTrial
from mmkd.result_file import ResultError
from mmkd.rundir import Root, RowDir, TrialDir
from mmkd.trial_state import State
from slurm.monitoring.rows import Row, Study, family, read_rows, read_studies
from slurm.monitoring.trials import Entry, Trial, finished_trial, read_trial, stamp

Stamp = tuple[tuple[int, int], ...]

SETTLED_SECONDS = 2.0
"""A time stamp that was younger than this when it was read may stand for two states: file systems count coarsely."""


@dataclass(frozen=True)
class Survey:
    """The content of a root at `taken` (seconds since 1970).

    `unread` trials have not been read yet, for want of time; `problems` name those that could not be read.
    """

    root: Path
    taken: float
    studies: tuple[Study, ...]
    rows: tuple[Row, ...]
    trials: tuple[Trial, ...]
    unread: int
    problems: tuple[str, ...]


class Collector:
    """Surveys of a root. A finished trial is read once, another one when its directory or its metrics have changed.

    What is finished at the first look is read from the rows' `finished.jsonl`, as far as that goes.

    Args:
        root: the directory of the studies.
        study: the one to look at, None for all.
    """

    def __init__(self, root: Root, study: str | None) -> None:
        self.root, self.study = root, study
        self._read: dict[Path, tuple[Stamp, Trial]] = {}
        self._listed: dict[Path, tuple[Stamp, list[Entry]]] = {}
        self._lines: dict[Path, Mapping[str, FinishedTrial]] = {}

    def look(self, seconds: float = float("inf")) -> Survey:
        """Survey the root; what is new to us is read for about so many seconds (one trial at least), latest first.

        Raises:
            UserError: there is no such root or study.
        """
        taken = time.time()
        studies = read_studies(self.root, self.study)
        rows = read_rows(self.root, studies, others=self.study is None)
        problems: list[str] = []
        trials: list[Trial] = []
        unread, spent = 0, 0.0
        for entry in reversed(self._entries(rows)):
            known = self._read.get(entry.directory.path)
            if known is None and spent > seconds:
                unread += 1
                continue
            began = time.monotonic()
            trial = self._refresh(entry, known, problems)
            spent += time.monotonic() - began if known is None else 0.0
            if trial is not None:
                trials.append(trial)
        found = tuple(reversed(trials))
        return Survey(self.root.path, taken, tuple(studies), tuple(rows), found, unread, tuple(problems))

    def _refresh(self, entry: Entry, known: tuple[Stamp, Trial] | None, problems: list[str]) -> Trial | None:
        """The trial as it is now; as it was known where it cannot be read."""
        path = entry.directory.path
        if known is not None and known[1].state is State.FINISHED:
            return known[1]
        if known is None and (line := self._line(entry)) is not None:
            trial = finished_trial(entry, line)
            self._read[path] = ((), trial)
            return trial
        try:
            mark = stamp(entry.directory)  # before the reading: what is written meanwhile makes another one
            if known is not None and known[0] == mark:
                return known[1]
            trial = read_trial(entry)
        except (UserError, OSError, ResultError, AttributeError, TypeError, ValueError) as error:
            # JSON of an unexpected shape too: whatever it is, one trial must not hide all others.
            problems.append(f"{entry.directory.name}: {error}")
            return known[1] if known else None
        self._read[path] = (_settled(mark), trial)
        return trial

    def _line(self, entry: Entry) -> FinishedTrial | None:
        """The trial's line in its row's `finished.jsonl`, which is read at the row's first look alone."""
        if entry.kind == "teacher":
            return None
        row = entry.directory.path.parents[1]
        if row not in self._lines:
            self._lines[row] = read_finished(RowDir(row)).trials
        return self._lines[row].get(line_name(entry.directory))

    def _entries(self, rows: list[Row]) -> list[Entry]:
        """Trials and final runs of the rows, and the teachers that they need (where all is watched: all).

        A teacher that is claimed and has no configuration yet is of no kind that anybody could know.
        """
        entries = []
        for row in rows:
            path = row.directory.path
            entries += self._list(path / "trials", partial(_runs, row, "tuning"))
            entries += self._list(path / "confirm", partial(_runs, row, "confirm"))
        families = {row.family for row in rows}
        teachers = self._list(self.root.path / "teachers", lambda: list(map(_teacher, self.root.teachers())))
        return entries + [entry for entry in teachers if entry.owner and (not self.study or entry.owner in families)]

    def _list(self, directory: Path, listing: Callable[[], list[Entry]]) -> list[Entry]:
        """The trials in a directory, listed again after a change; one that was set aside takes its trials with it."""
        try:
            found = os.stat(directory)
        except FileNotFoundError:
            return []
        mark = ((found.st_mtime_ns, found.st_ino),)
        known = self._listed.get(directory)
        if known is not None and known[0] == mark:
            return known[1]
        entries = listing()
        there = {entry.directory.path for entry in entries}
        for entry in known[1] if known else ():
            if entry.directory.path not in there:
                self._read.pop(entry.directory.path, None)
        self._listed[directory] = (_settled(mark) if all(entry.owner for entry in entries) else (), entries)
        return entries


def _settled(mark: Stamp) -> Stamp:
    """The stamp, or one that equals no other where it is too young to be trusted."""
    return mark if time.time() - max(time_ns for time_ns, _ in mark) / 1e9 > SETTLED_SECONDS else ()


def _runs(row: Row, kind: str) -> list[Entry]:
    """The tuning trials of a row (t3 is trial 3), or its final runs (s1 is seed 1)."""
    runs, letter = (row.directory.trials(), "t") if kind == "tuning" else (row.directory.final_runs(), "s")
    owner = row.directory.path.name
    return [
        Entry(run, owner, kind, row.title, f"{letter}{run.path.name.split('-')[0]}", row.epochs, row.selection)
        for run in runs
    ]


def _teacher(directory: TrialDir) -> Entry:
    found = read_json(directory.config)
    config = found if isinstance(found, dict) else {}
    replicate, seed = divmod(int(config.get("seed", 0)), SEEDS_PER_REPLICATE)
    label = replicate_title(teacher_label(config.get("branch")), replicate)
    split = (config.get("split") or {}).get("digest", "")
    tuned_from = str(config.get("tuned_from", ""))
    owner = family(config, config.get("data", {}).get("fingerprint"), split, tuned_from)
    return Entry(
        directory, owner, "teacher", label, f"s{seed}", int(config.get("training", {}).get("epochs", 0)), "loss"
    )
