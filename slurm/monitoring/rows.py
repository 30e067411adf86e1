"""Read the rows that are watched, their studies, and the end of a trial's log."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from mmkd.attempts import current_attempt
from mmkd.errors import UserError, choose
from mmkd.files import last_lines
from mmkd.find_trial import matching
from mmkd.lock import Holder, read_holder
from mmkd.records import RowRecord, StudyRecord, StudyRow, WinnerRecord, find_record, read_record, study_names
from mmkd.rundir import Root, RowDir, TrialDir

LOG_BYTES = 32768
LOG_LINES = 50


@dataclass(frozen=True)
class Study:
    """A recorded study, and the names of the last jobs of its controller and its workers, "" if there were none."""

    name: str
    record: StudyRecord
    controller_job: str
    worker_job: str


@dataclass(frozen=True)
class Row:
    """A row: `trials` and `seeds` are what the studies want of it, the rest is what it is.

    `family` is what its teachers share but for the seed, "" where it needs none.
    """

    directory: RowDir
    name: str
    label: str
    group: str
    studies: tuple[str, ...]
    trials: int
    seeds: int
    epochs: int
    selection: str
    family: str
    winner: WinnerRecord | None
    controller: Holder | None
    is_begun: bool = True
    """False if no launch has included the row yet (see launch.py --rows)."""


def read_studies(root: Root, wanted: str | None) -> list[Study]:
    """The studies under a root, or the one that is wanted.

    Raises:
        UserError: there is no such root or study, or its file is damaged.
    """
    if not root.path.is_dir():
        raise UserError(f"--root {root.path}: no such directory; it is the directory of the launched studies")
    if not any((root.path / name).is_dir() for name in ("studies", "rows")):
        raise UserError(f"--root {root.path}: no studies or rows in it; it is the directory of the launched studies")
    names = study_names(root.path)
    if wanted is not None:
        names = [choose(f"study (--study, of {root.path})", wanted, names)]
    return [
        Study(
            name,
            read_record(root.study(name), StudyRecord),
            _job_name(root.controller_script(name)),
            _job_name(root.worker_script(name)),
        )
        for name in names
    ]


def _job_name(script: Path) -> str:
    try:
        found = re.search(r"^#SBATCH --job-name=(\S+)", script.read_text(encoding="utf-8"), re.MULTILINE)
    except FileNotFoundError:
        return ""
    return found[1] if found else ""


def read_rows(root: Root, studies: list[Study], *, others: bool) -> list[Row]:
    """Read the studies' rows, each once, in their order; with `others` also those that are in no study."""
    wanted: dict[str, list[tuple[str, StudyRow]]] = {}
    for study in studies:
        for row in study.record.rows:
            wanted.setdefault(row.directory, []).append((study.name, row))
    if others:
        for directory in root.rows():
            wanted.setdefault(directory.path.name, [])
    names = [entries[0][1].name if entries else "" for entries in wanted.values()]
    twice = {name for name in names if names.count(name) > 1}
    return [_read_row(root, name, entries, twice) for name, entries in wanted.items()]


def _read_row(root: Root, name: str, entries: list[tuple[str, StudyRow]], twice: set[str]) -> Row:
    """Read a row; a damaged record counts as absent: a relaunch reports and rewrites it."""
    directory = RowDir(root.path / "rows" / name)
    holder = read_holder(directory.lock)
    record = find_record(directory.row, RowRecord)
    identity = None if record is None else record.identity
    first = entries[0][1] if entries else None
    return Row(
        directory=directory,
        name=name if first is None or first.name in twice else first.name,
        label=name if first is None else first.label,
        group="" if first is None else first.group or "",
        studies=tuple(study for study, _ in entries),
        trials=max((row.trials for _, row in entries), default=0),
        seeds=max((len(row.seeds) for _, row in entries), default=0),
        epochs=0 if identity is None else int(identity.training.get("epochs", 0)),
        selection="loss" if identity is None else identity.selection,
        family="" if identity is None else family(identity.teacher, identity.data),
        winner=find_record(directory.winner, WinnerRecord),
        controller=holder if holder and holder.alive else None,
        is_begun=directory.path.is_dir(),
    )


def family(teacher: Mapping[str, Any] | None, fingerprint: object) -> str:
    """The identity of teachers that differ only in their seed, from a row's identity or a teacher's configuration."""
    if not teacher:
        return ""
    return json.dumps([fingerprint, *(teacher.get(key) for key in ("branch", "network", "training"))], sort_keys=True)


@dataclass(frozen=True)
class LogTail:
    """The last lines of a log, without colours and control characters; `path` is relative to the root."""

    path: Path
    lines: tuple[str, ...]


def find_trial(wanted: str, root: Root, rows: Sequence[Row]) -> TrialDir:
    """The trial that `--log` names: ROW/trials/3, ROW/confirm/1, teachers/4f1e; ROW is a row's name or its directory.

    Raises:
        UserError: there is none, or several.
    """
    owner, _, rest = wanted.removeprefix(f"{root.path}/").strip("/").removeprefix("rows/").partition("/")
    if owner == "teachers":
        candidates, name = root.teachers(), rest
    else:
        by_directory, by_name = {row.directory.path.name: row for row in rows}, {row.name: row for row in rows}
        row = (by_directory.get(owner) or by_name[choose("row (--log)", owner, by_name)]).directory
        kind, _, name = rest.partition("/")
        candidates = row.final_runs() if kind == "confirm" else row.trials()
    found = matching(candidates, name)
    if len(found) == 1:
        return found[0]
    names = ", ".join(trial.path.name for trial in candidates[:20]) + (", …" if len(candidates) > 20 else "")
    trouble = "names several" if found else "no such trial"
    raise UserError(f"--log {wanted}: {trouble}; ROW/trials/N, ROW/confirm/SEED or teachers/NAME ({names or 'none'})")


def tail_log(directory: TrialDir) -> LogTail:
    """The end of the log of a trial's latest attempt."""
    path = directory.log(current_attempt(directory))
    return LogTail(path.relative_to(directory.root.path), tuple(_shown_lines(path)))


def _shown_lines(path: Path) -> list[str]:
    try:
        raw = last_lines(path, LOG_BYTES)
    except FileNotFoundError:
        return ["there is no log yet"]
    # A progress bar writes over its line: what stands after the last carriage return is what a terminal would show.
    shown = (line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2] for line in raw)
    lines = [Text.from_ansi(line.expandtabs()).plain for line in shown]
    said = [line for line in lines if line.strip()]
    return said[-LOG_LINES:] or ["the log is empty"]
