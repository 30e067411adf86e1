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
from mmkd.config import recipe_digest
from mmkd.errors import UserError, choose
from mmkd.files import last_lines
from mmkd.find_trial import matching
from mmkd.formatting import replicate_title
from mmkd.lock import Holder, read_holder
from mmkd.records import (
    RowIdentity,
    RowRecord,
    StudyRecord,
    StudyRow,
    WinnerRecord,
    find_record,
    read_record,
    study_names,
)
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
    """A replicate of a row: `trials` and `seeds` are what the studies want of it, the rest is what it is.

    Replicates of one row have one `name`. `family` is what its teachers share but for the seed, "" where it needs none.
    """

    directory: RowDir
    name: str
    replicate: int
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
    candidates: int = 0
    """Teachers that are tried to choose one; 0 where they are not tuned."""

    @property
    def title(self) -> str:
        """The row's name, with its replicate if it is not the first."""
        return replicate_title(self.name, self.replicate)


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
    """Read the studies' rows, each once, in their order; with `others` also those that are in no study.

    Rows of one name that are not replicates of one row are named by the directory of their first replicate.
    """
    wanted: dict[str, list[tuple[str, StudyRow]]] = {}
    for study in studies:
        for row in study.record.rows:
            wanted.setdefault(row.directory, []).append((study.name, row))
    if others:
        for directory in root.rows():
            wanted.setdefault(directory.path.name, [])
    records = {name: find_record(RowDir(root.path / "rows" / name).row, RowRecord) for name in wanted}
    first = _first_replicates(studies, records)
    names: dict[str, set[str]] = {}
    for name, entries in wanted.items():
        names.setdefault(entries[0][1].name if entries else "", set()).add(first[name])
    twice = {name for name, firsts in names.items() if len(firsts) > 1 or not name}
    return [_read_row(root, name, first[name], records[name], entries, twice) for name, entries in wanted.items()]


def _first_replicates(studies: Sequence[Study], records: Mapping[str, RowRecord | None]) -> dict[str, str]:
    """By a row's directory, that of the first replicate of the row: as a study says, else by what they are."""
    first: dict[str, str] = {}
    for study in studies:
        replicates: dict[str, list[str]] = {}
        for row in study.record.rows:
            replicates.setdefault(row.name, []).append(row.directory)
        for same in replicates.values():
            known = next((first[name] for name in same if name in first), same[0])
            first |= {name: first.get(name, known) for name in same}
    alike: dict[str, str] = {}
    for name, record in records.items():
        if name not in first:
            facts = record.identity.model_dump(exclude={"split", "replicate"}) if record else name
            first[name] = alike.setdefault(json.dumps(facts, sort_keys=True), name)
    return first


def _read_row(
    root: Root,
    name: str,
    first_replicate: str,
    record: RowRecord | None,
    entries: list[tuple[str, StudyRow]],
    twice: set[str],
) -> Row:
    """Read a row; a damaged record counts as absent: a relaunch reports and rewrites it."""
    directory = RowDir(root.path / "rows" / name)
    holder = read_holder(directory.lock)
    identity = None if record is None else record.identity
    first = entries[0][1] if entries else None
    return Row(
        directory=directory,
        name=first_replicate if first is None or first.name in twice else first.name,
        replicate=first.replicate if first else identity.replicate if identity else 0,
        label=name if first is None else first.label,
        group="" if first is None else first.group or "",
        studies=tuple(study for study, _ in entries),
        trials=max((row.trials for _, row in entries), default=0),
        seeds=max((len(row.seeds) for _, row in entries), default=0),
        epochs=0 if identity is None else int(identity.training.get("epochs", 0)),
        selection="loss" if identity is None else identity.selection,
        family="" if identity is None else _family(identity),
        candidates=max((len(row.candidates) for _, row in entries), default=0),
        winner=find_record(directory.winner, WinnerRecord),
        controller=holder if holder and holder.alive else None,
        is_begun=directory.path.is_dir(),
    )


def _family(identity: RowIdentity) -> str:
    tuned = identity.teacher_tuning is not None and identity.teacher is not None
    recipe = recipe_digest(identity.data, identity.teacher or {}) if tuned else ""
    return family(identity.teacher, identity.data, identity.split, recipe)


def family(teacher: Mapping[str, Any] | None, fingerprint: object, split: str = "", tuned_from: str = "") -> str:
    """The identity of teachers that differ only in their seed, from a row's identity or a teacher's configuration.

    `split` is the digest of the drawn split, "" for the data file's own; `tuned_from` as in `TeacherConfig`.
    """
    if not teacher:
        return ""
    if tuned_from:
        return json.dumps([tuned_from, split])
    facts = [fingerprint, split, *(teacher.get(key) for key in ("branch", "network", "training"))]
    return json.dumps(facts, sort_keys=True)


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
        by_directory, by_name = {row.directory.path.name: row for row in rows}, {row.title: row for row in rows}
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
