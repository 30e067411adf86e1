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
from mmkd.rundir import Root, RowDir


@dataclass(frozen=True)
class Study:
    """A `studies/<name>.json`; `rows` are as it holds them; `max_gpu_hours` is there where the launch noted it.

    `controller_job` is the name of the job that its controller last was, "" if it never was one.
    """

    name: str
    rows: tuple[Mapping[str, Any], ...]
    max_gpu_hours: float | None
    controller_job: str


@dataclass(frozen=True)
class Winner:
    """A row's winner: its trial's number, and the folders of the confirming runs that count."""

    trial: int
    trials: int
    confirm: frozenset[str]


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
    winner: Winner | None
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
    names = sorted(path.stem for path in (root.path / "studies").glob("*.json") if not path.name.startswith("."))
    if wanted is not None:
        names = [choose(f"study (--study, of {root.path})", wanted, names)]
    return [_read_study(root, name) for name in names]


def _read_study(root: Root, name: str) -> Study:
    facts = read_mapping(root.study(name))
    rows = facts.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "directory" in row for row in rows):
        raise UserError(f"{root.study(name)}: no list of rows in it; launch the study again, which writes it anew")
    hours = facts.get("max_gpu_hours")
    limit = float(hours) if isinstance(hours, int | float) else None
    return Study(name, tuple(rows), limit, _controller_job(controller_script(root, name)))


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
    """The studies' rows, each once, in their order; `others`: and those that lie there and are in no study.

    Raises:
        UserError: a row's or a study's file is damaged.
    """
    asked: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for study in studies:
        for row in study.rows:
            asked.setdefault(str(row["directory"]), []).append((study.name, row))
    if others:
        for place in root.rows():
            asked.setdefault(place.path.name, [])
    names = [str(entries[0][1].get("name")) if entries else "" for entries in asked.values()]
    twice = {name for name in names if names.count(name) > 1}
    try:
        return [_read_row(root, directory, entries, twice) for directory, entries in asked.items()]
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{root.path}: a row.json or studies/*.json is not as launches write them ({error})") from None


def _read_row(root: Root, directory: str, entries: list[tuple[str, Mapping[str, Any]]], twice: set[str]) -> Row:
    place = RowDir(root.path / "rows" / directory)
    holder = read_holder(place.lock)
    identity: dict[str, Any] = read_mapping(place.row).get("identity", {})
    first = entries[0][1] if entries else {}
    name = str(first.get("name") or directory)
    return Row(
        directory=place,
        name=directory if name in twice else name,
        label=str(first.get("label") or directory),
        group=str(first.get("group") or ""),
        studies=tuple(study for study, _ in entries),
        trials=max((int(row.get("trials", 0)) for _, row in entries), default=0),
        seeds=max((len(row.get("seeds", ())) for _, row in entries), default=0),
        epochs=int(identity.get("training", {}).get("epochs", 0)),
        selection=str(identity.get("selection", "loss")),
        family=family(identity.get("teacher"), identity.get("data")),
        winner=_read_winner(place),
        controller=holder if holder and holder.alive else None,
    )


def family(teacher: Mapping[str, Any] | None, fingerprint: object) -> str:
    """What teachers share that differ in their seed alone; from a row's identity or from a teacher's configuration."""
    if not teacher:
        return ""
    return json.dumps([fingerprint, *(teacher.get(key) for key in ("branch", "network", "training"))], sort_keys=True)


def _read_winner(place: RowDir) -> Winner | None:
    facts = read_mapping(place.winner)
    try:
        names = frozenset(str(name) for name in facts.get("confirm", {}).values())
        return Winner(int(facts["trial"]), int(facts.get("trials", 0)), names)
    except (KeyError, AttributeError, TypeError, ValueError):
        return None  # damaged: as if it were not there, which a launch will say and mend


def read_mapping(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none."""
    value = read_json(path)
    return value if isinstance(value, dict) else {}
