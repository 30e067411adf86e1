"""Implement --clean: show the disk use of a study and remove files that nothing will read again."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmkd.formatting import columns, count, size
from mmkd.lock import is_held
from mmkd.rundir import RowDir, TrialDir
from mmkd.trial_state import State, trial_state
from sweeps.controller.row_locks import take_rows
from sweeps.launched_study import RecordedStudy

KINDS = ("checkpoints", "weights", "results", "logs", "other")


def files_under(directory: Path) -> Iterator[tuple[Path, int]]:
    """Yield all files below a directory with their sizes in bytes, except those that vanish meanwhile."""
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            try:
                yield path, path.lstat().st_size
            except FileNotFoundError:
                continue


def disk_use(study: RecordedStudy) -> Counter[tuple[str, str]]:
    """Sum bytes by owner (finished runs, unfinished runs, or the rows themselves) and kind of file."""
    used: Counter[tuple[str, str]] = Counter()
    kinds = {"checkpoint.pt": "checkpoints", "weights.pt": "weights", "result.h5": "results"}
    trials = study.directories()
    finished = {trial.path: trial.result.exists() for trial in trials}
    directories = [*(row.path for row in study.row_directories()), *(trial.path for trial in study.teachers())]
    for path, number in (found for directory in directories for found in files_under(directory)):
        owner = next((parent for parent in path.parents if parent in finished), None)
        of = "rows" if owner is None else "finished" if finished[owner] else "unfinished"
        used[of, "logs" if path.parent.name == "log" else kinds.get(path.name, "other")] += number
    return used


def show_disk_use(study: RecordedStudy, used: Counter[tuple[str, str]]) -> None:
    """Print a table of the disk use; rows and teachers shared with other studies count too."""
    print(f"{study.name}: {study.title}")
    groups = {"finished": "finished runs", "unfinished": "unfinished runs", "rows": "rows (journals and the like)"}
    lines: list[tuple[str, ...]] = [("", *KINDS, "sum")]
    for key, label in groups.items():
        cells = [used[key, kind] for kind in KINDS]
        lines.append((label, *map(size, cells), size(sum(cells))))
    sums = [sum(used[key, kind] for key in groups) for kind in KINDS]
    lines.append(("sum", *map(size, sums), size(sum(sums))))
    print("\n".join(columns(lines)))


def unneeded(study: RecordedStudy) -> list[Path]:
    """List checkpoints of runs that will not resume, and leftovers of killed writers. Hold the locks of the rows.

    Excludes files that a job or another study's controller may be writing. Weights, results, logs and metrics stay:
    tables, prediction and a relaunch read them.
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
    for row in study.row_directories():
        found += [*_leftovers([row.path]), *_set_aside(row)]
    return found


def _existing(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.exists()]


def _leftovers(directories: Iterable[Path]) -> list[Path]:
    """List the temporary files of writers that were killed in `write_atomically`."""
    return [path for directory in directories for path in directory.glob(".tmp-*") if path.is_file()]


def _set_aside(row: RowDir) -> list[Path]:
    """List checkpoints and leftovers of trials that were set aside when the row began again."""
    trials = [TrialDir(path) for path in row.path.glob("failed-*/trials/*") if path.is_dir()]
    return _existing(t.checkpoint for t in trials) + _leftovers(t.path for t in trials)


def clean(study: RecordedStudy, *, dry_run: bool = False) -> int:
    """Show the disk use, then remove `unneeded` files, or with `dry_run` only count them. Return the exit code.

    Raises:
        UserError: a controller is at work on one of its rows.
    """
    with take_rows(study.row_directories(), "--clean"):
        show_disk_use(study, disk_use(study))
        paths = unneeded(study)
        freed = sum(path.lstat().st_size for path in paths)
        what = f"{count(len(paths), 'file')} of {size(freed)}: checkpoints that nothing resumes from, and leftovers"
        if dry_run or not paths:
            print(f"\nto remove: {what}" if paths else "\nnothing to remove")
            return 0
        for path in paths:
            path.unlink(missing_ok=True)
        print(f"\nremoved {what}")
    return 0
