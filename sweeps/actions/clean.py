"""What a study takes on disk, and the removal of what nothing will read again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mmkd.errors import UserError
from mmkd.formatting import columns, count, size
from mmkd.lock import is_held
from mmkd.rundir import RowDir, TrialDir
from mmkd.trial_state import State, trial_state
from sweeps.controller.row_locks import take_rows
from sweeps.records import RecordedStudy

KINDS = ("checkpoints", "weights", "results", "logs", "other")


def files_under(folder: Path) -> Iterator[tuple[Path, int]]:
    """All files below a folder with their sizes in bytes; those that vanish meanwhile are left out."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                yield path, path.lstat().st_size
            except FileNotFoundError:
                continue


def kind_of(path: Path) -> str:
    """Which of `KINDS` a trial's file is."""
    if path.parent.name == "log":
        return "logs"
    kinds = {"checkpoint.pt": "checkpoints", "weights.pt": "weights", "result.h5": "results"}
    return kinds.get(path.name, "other")


def disk_use(study: RecordedStudy) -> dict[tuple[str, str], int]:
    """Bytes by kind and by what they belong to: finished runs, unfinished runs, or the rows themselves."""
    used: dict[tuple[str, str], int] = {}
    trials = study.directories()
    finished = {trial.path: trial.result.exists() for trial in trials}
    folders = [*(row.path for row in study.places()), *(trial.path for trial in study.teachers())]
    for path, number in (found for folder in folders for found in files_under(folder)):
        owner = next((parent for parent in path.parents if parent in finished), None)
        of = "rows" if owner is None else "finished" if finished[owner] else "unfinished"
        key = (of, kind_of(path))
        used[key] = used.get(key, 0) + number
    return used


def show_disk_use(study: RecordedStudy, used: Mapping[tuple[str, str], int]) -> None:
    """Print a table of it; rows and teachers that other studies share count too."""
    print(f"{study.name}: {study.title}")
    groups = {"finished": "finished runs", "unfinished": "unfinished runs", "rows": "rows (journals and the like)"}
    lines: list[tuple[str, ...]] = [("", *KINDS, "sum")]
    for key, label in groups.items():
        cells = [used.get((key, kind), 0) for kind in KINDS]
        lines.append((label, *map(size, cells), size(sum(cells))))
    sums = [sum(used.get((key, kind), 0) for key in groups) for kind in KINDS]
    lines.append(("sum", *map(size, sums), size(sum(sums))))
    print("\n".join(columns(lines)))


def unneeded(study: RecordedStudy) -> list[Path]:
    """Checkpoints of runs that will not go on, and what killed writers left; the study's row locks are held.

    What a job or another study's controller may be writing just now is left alone. Weights, results, logs and metrics
    stay: tables, prediction and a relaunch read them.
    """
    found: list[Path] = []
    for trial in study.directories():
        if is_held(trial.lock) or is_held(trial.claim):
            continue
        state = trial_state(trial)
        if state in (State.FINISHED, State.SUPERSEDED):
            found += _existing([trial.checkpoint])
        if state is State.FINISHED:
            found += _existing([trial.lock])
        if not state.is_live:
            found += _leftovers([trial.path, trial.attempts])
    for row in study.places():
        found += [*_leftovers([row.path]), *_set_aside(row)]
    return found


def _existing(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.exists()]


def _leftovers(folders: Iterable[Path]) -> list[Path]:
    """What `write_atomically` leaves when it is killed."""
    return [path for folder in folders for path in folder.glob(".tmp-*") if path.is_file()]


def _set_aside(row: RowDir) -> list[Path]:
    """Checkpoints and leftovers of trials that were set aside: the row began again without them."""
    trials = [TrialDir(path) for path in row.path.glob("failed-*/trials/*") if path.is_dir()]
    return _existing(t.checkpoint for t in trials) + _leftovers(t.path for t in trials)


def clean(study: RecordedStudy, *, dry_run: bool = False) -> int:
    """Show what the study takes on disk, then remove what is `unneeded` (with `dry_run` say so); the exit code.

    Raises:
        UserError: a controller is at work on one of its rows.
    """
    with take_rows(study.places()) as locks:
        for holder in locks.refused.values():
            raise UserError(f"--clean: a controller is at work: {holder}; wait for it, or --cancel it")
        show_disk_use(study, disk_use(study))
        paths = unneeded(study)
        freed = sum(path.lstat().st_size for path in paths)
        what = f"{count(len(paths), 'file')} of {size(freed)}: checkpoints that nothing goes on from, and leftovers"
        if dry_run or not paths:
            print(f"\nto remove: {what}" if paths else "\nnothing to remove")
            return 0
        for path in paths:
            path.unlink(missing_ok=True)
        print(f"\nremoved {what}")
    return 0
