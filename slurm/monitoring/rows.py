"""Read the rows that are watched, and their studies."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmkd.errors import UserError, choose
from mmkd.files import read_json
from mmkd.lock import Holder, read_holder
from mmkd.records import RowRecord, StudyRecord, StudyRow, WinnerRecord, find_record, read_record, study_names
from mmkd.rundir import Root, RowDir


@dataclass(frozen=True)
class Study:
    """A recorded study; `controller_job` is the name of its controller's last job, "" if there was none."""

    name: str
    record: StudyRecord
    controller_job: str


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


def read_studies(root: Root, wanted: str | None) -> list[Study]:
    """The studies under a root, or the one that is wanted.

    Raises:
        UserError: there is no such root or study, or its file is damaged.
    """
    if not root.path.is_dir():
        raise UserError(f"--root {root.path}: no such folder; it is where the launched studies lie")
    if not any((root.path / folder).is_dir() for folder in ("studies", "rows")):
        raise UserError(f"--root {root.path}: no studies or rows in it; it is where the launched studies lie")
    names = study_names(root.path)
    if wanted is not None:
        names = [choose(f"study (--study, of {root.path})", wanted, names)]
    return [
        Study(name, read_record(root.study(name), StudyRecord), _controller_job(controller_script(root, name)))
        for name in names
    ]


def controller_script(root: Root, name: str) -> Path:
    """Where `launch.py --detach` leaves the script of a study's controller."""
    return root.controller_log(name).with_suffix(".sbatch")


def _controller_job(script: Path) -> str:
    try:
        found = re.search(r"^#SBATCH --job-name=(\S+)", script.read_text(encoding="utf-8"), re.MULTILINE)
    except FileNotFoundError:
        return ""
    return found[1] if found else ""


def read_rows(root: Root, studies: list[Study], *, others: bool) -> list[Row]:
    """Read the studies' rows, each once, in their order; with `others` also those that are in no study."""
    asked: dict[str, list[tuple[str, StudyRow]]] = {}
    for study in studies:
        for row in study.record.rows:
            asked.setdefault(row.directory, []).append((study.name, row))
    if others:
        for place in root.rows():
            asked.setdefault(place.path.name, [])
    names = [entries[0][1].name if entries else "" for entries in asked.values()]
    twice = {name for name in names if names.count(name) > 1}
    return [_read_row(root, directory, entries, twice) for directory, entries in asked.items()]


def _read_row(root: Root, directory: str, entries: list[tuple[str, StudyRow]], twice: set[str]) -> Row:
    """Read a row; a damaged record counts as absent: a relaunch says so and writes it anew."""
    place = RowDir(root.path / "rows" / directory)
    holder = read_holder(place.lock)
    record = find_record(place.row, RowRecord)
    identity = None if record is None else record.identity
    first = entries[0][1] if entries else None
    return Row(
        directory=place,
        name=directory if first is None or first.name in twice else first.name,
        label=directory if first is None else first.label,
        group="" if first is None else first.group or "",
        studies=tuple(study for study, _ in entries),
        trials=max((row.trials for _, row in entries), default=0),
        seeds=max((len(row.seeds) for _, row in entries), default=0),
        epochs=0 if identity is None else int(identity.training.get("epochs", 0)),
        selection="loss" if identity is None else identity.selection,
        family="" if identity is None else family(identity.teacher, identity.data),
        winner=find_record(place.winner, WinnerRecord),
        controller=holder if holder and holder.alive else None,
    )


def family(teacher: Mapping[str, Any] | None, fingerprint: object) -> str:
    """What teachers share that differ in their seed alone; from a row's identity or from a teacher's configuration."""
    if not teacher:
        return ""
    return json.dumps([fingerprint, *(teacher.get(key) for key in ("branch", "network", "training"))], sort_keys=True)


def read_mapping(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none."""
    value = read_json(path)
    return value if isinstance(value, dict) else {}
