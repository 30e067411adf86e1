"""Find the study that a launch recorded, for status, cancel, clean and archive. Imports neither data nor torch."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmkd.config import ALGORITHM_VERSION
from mmkd.errors import UserError
from mmkd.finished import read_finished
from mmkd.formatting import count, replicate_title
from mmkd.records import (
    FinishedTrial,
    PaperFigures,
    RowRecord,
    StudyRecord,
    StudyRow,
    find_record,
    read_record,
    select_rows,
    store_split,
    study_names,
    write_record,
)
from mmkd.rundir import Root, RowDir, TrialDir, check_name
from mmkd.trial_state import trial_state
from sweeps.study_file import find_study

if TYPE_CHECKING:
    from sweeps.rows import Row
    from sweeps.study_file import StudyFile


@dataclass(frozen=True)
class RecordedRow:
    """One replicate of a row of a study, with the budgets of the last launch."""

    name: str
    replicate: int
    directory: RowDir
    trials: int
    seeds: tuple[int, ...]
    teachers: tuple[TrialDir, ...]
    candidates: int = 0
    """Teachers that are tried to choose one; 0 where they are not tuned."""

    @property
    def title(self) -> str:
        """The row's name, with its replicate if it is not the first."""
        return replicate_title(self.name, self.replicate)

    def runs(self) -> list[TrialDir]:
        """Return tuning trials and final runs, superseded ones included."""
        return [*self.directory.trials(), *self.directory.final_runs()]

    @cached_property
    def lines(self) -> Mapping[str, FinishedTrial]:
        """The lines of its `finished.jsonl` that hold."""
        return read_finished(self.directory).trials


@dataclass(frozen=True)
class RecordedStudy:
    """A study under a root; `name` is the name of its table."""

    name: str
    title: str
    root: Root
    rows: tuple[RecordedRow, ...]

    def teachers(self) -> list[TrialDir]:
        """Return the teachers of all rows, each once, trained or not."""
        return list(dict.fromkeys(teacher for row in self.rows for teacher in row.teachers))

    def directories(self) -> list[TrialDir]:
        """Return all trial directories: of the rows, and of the teachers."""
        return [*(run for row in self.rows for run in row.runs()), *self.teachers()]

    def unlisted(self) -> list[TrialDir]:
        """Return the directories without a line in `finished.jsonl`: runs that are not finished, and the teachers."""
        listed = {row.directory.path / name for row in self.rows for name in row.lines}
        return [directory for directory in self.directories() if directory.path not in listed]

    def row_directories(self) -> list[RowDir]:
        """Return the rows' directories that exist."""
        return [row.directory for row in self.rows if row.directory.path.is_dir()]


def record_study(
    root: Root,
    name: str,
    study: StudyFile,
    rows: Sequence[Row],
    max_gpu_hours: float | None = None,
    *,
    launched: Sequence[Row] | None = None,
) -> None:
    """Record the study: all its rows, what its table is made from, the budget that the monitor shows, and its splits.

    Rows that are not `launched` now (None: all are) keep the budget that they were last launched with. A record of rows
    of an older algorithm version or of other data is kept under another name, so that their table can still be printed.
    """
    path = root.study(name)
    former = find_record(path, StudyRecord)
    if former and (kept := _name_to_keep(root, former, rows[0].info.fingerprint)):
        print(f"kept      the table of earlier rows of another version or of other data is now {kept}")
        write_record(root.study(kept), former.model_copy(update={"name": kept}))
        if root.plan(name).exists():
            os.replace(root.plan(name), root.plan(kept))
    for split in {row.replicate: row.info.split for row in rows}.values():
        if split is not None:
            store_split(root, split)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, study_record(name, study, rows, former, max_gpu_hours, launched=launched))


def study_record(
    name: str,
    study: StudyFile,
    rows: Sequence[Row],
    former: StudyRecord | None = None,
    max_gpu_hours: float | None = None,
    *,
    launched: Sequence[Row] | None = None,
) -> StudyRecord:
    """Make the record of a study; see `record_study`. `former` is the one before."""
    known = {(row.name, row.directory): row for row in former.rows} if former else {}
    recorded = []
    for row in rows:
        line = _record_row(row)
        is_launched = launched is None or row in launched
        recorded.append(line if is_launched else known.get((line.name, line.directory), line))
    return StudyRecord(
        name=name, title=study.title, control=study.control, max_gpu_hours=max_gpu_hours, rows=tuple(recorded)
    )


def _name_to_keep(root: Root, former: StudyRecord, fingerprint: str) -> str:
    """Return the new name of a record that a study of other rows is about to replace; "" for the same study."""
    if versions := _older_versions(root, former):
        return _name_of_older(former.name, versions)
    records = (find_record(RowDir(root.path / "rows" / row.directory).row, RowRecord) for row in former.rows)
    others = [r.data.fingerprint for r in records if r and r.data.fingerprint != fingerprint]
    return f"{former.name}-{others[0][:8]}" if others else ""


def _older_versions(root: Root, study: StudyRecord) -> list[int]:
    """Return the older algorithm versions that rows of a recorded study are of, each once."""
    records = (find_record(RowDir(root.path / "rows" / row.directory).row, RowRecord) for row in study.rows)
    return sorted({r.identity.algorithm for r in records if r and r.identity.algorithm < ALGORITHM_VERSION})


def _name_of_older(name: str, versions: Sequence[int]) -> str:
    return f"{name}-v{versions[-1]}"


def older_rows(root: Root, name: str) -> str:
    """Say in one line that the root has rows of an older algorithm version, and where their table is; "" if none."""
    records = (find_record(row.row, RowRecord) for row in root.rows())
    older = [r.identity.algorithm for r in records if r and r.identity.algorithm < ALGORITHM_VERSION]
    if not older:
        return ""
    former = find_record(root.study(name), StudyRecord)
    versions = _older_versions(root, former) if former else []
    table = f"; their table becomes {_name_of_older(name, versions)}" if versions else ""
    which = ", ".join(map(str, sorted(set(older))))
    return (
        f"{count(len(older), 'row')} of algorithm version {which} (now {ALGORITHM_VERSION}): kept as they are, "
        f"and this launch begins new rows{table}"
    )


def _record_row(row: Row) -> StudyRow:
    from sweeps.rows import teacher_directories, tuning_teachers

    return StudyRow(
        name=row.name,
        label=row.label,
        group=row.group,
        **({"replicate": row.replicate} if row.replicate else {}),
        **({"control": row.control} if row.control else {}),
        paper=row.paper and PaperFigures.model_validate(row.paper.model_dump()),
        directory=row.directory.path.name,
        trials=row.budget,
        seeds=tuple(range(1, row.seeds + 1)),
        teachers=tuple(directory.path.name for directory in teacher_directories(row)),
        **({"candidates": tuple(d.path.name for d in tuning_teachers(row))} if row.search else {}),
    )


def table_name(options: argparse.Namespace, origin: Path) -> str:
    """Return the name of the table: --as, else the study's name with the data, primary and pairing of the command line.

    Raises:
        UserError: a name that cannot be a file's.
    """
    if options.name:
        return check_name("study", options.name)
    data = Path(options.data).stem if options.data else None
    parts = [origin.stem, *(part for part in (data, options.primary, options.pairing) if part)]
    return check_name("study", re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(parts)))


def find_recorded(options: argparse.Namespace) -> RecordedStudy:
    """Find the study that a launch with these options recorded; --study may also name it as studies/*.json does.

    Raises:
        UserError: there is none, with those that there are; or its record is damaged.
    """
    root = Root.at(options.root)
    known = study_names(root.path)
    name = options.study if options.study in known and options.name is None else ""
    if not name or any((options.data, options.primary, options.pairing)):
        name = table_name(options, find_study(options.study))
    if name not in known:
        raise UserError(
            f"{root.path}: no study {name!r} was launched there (there are: {', '.join(known) or 'none'}); give --root "
            f"and --study, --data, --primary, --pairing, --as as at its launch, or one of these names as --study"
        )
    return read_recorded(root, name, options.rows)


def read_recorded(root: Root, name: str, wanted: Sequence[str] | None = None) -> RecordedStudy:
    """Read the record of a study: its rows, or those `wanted` and the control.

    Raises:
        UserError: its record is damaged, or it has no such row.
    """
    study = read_record(root.study(name), StudyRecord)
    names = select_rows(wanted, study.controls, study.control)
    rows = tuple(
        RecordedRow(
            row.name,
            row.replicate,
            RowDir(root.path / "rows" / row.directory),
            row.trials,
            row.seeds,
            tuple(TrialDir(root.path / "teachers" / teacher) for teacher in row.teachers),
            len(row.candidates),
        )
        for row in study.rows
        if row.name in names
    )
    return RecordedStudy(name, study.title, root, rows)


def without_end(directories: Iterable[TrialDir]) -> list[TrialDir]:
    """Select trials whose last attempt was announced and has no recorded end."""
    return [d for d in directories if trial_state(d).is_live]
