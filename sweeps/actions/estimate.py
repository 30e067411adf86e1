"""Estimate the runs that a study needs still, and their time, from similar runs or a probe of one epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmkd.attempts import read_attempts
from mmkd.config import Run
from mmkd.files import read_json
from mmkd.formatting import count, duration, remaining
from mmkd.records import RowRecord, as_written, find_record
from mmkd.rundir import Root, RowDir, TrialDir
from sweeps.actions.status import read_journal
from sweeps.rows import TUNING_SEED, Row, teacher_directories

ALIKE = ("data", "primary", "pairing", "method", "level", "settings", "student")
"""Keys of a row's identity that decide how long an epoch takes, with the teacher's network and the training recipe."""


@dataclass(frozen=True)
class Estimate:
    """The seconds that a run takes, its start-up included, and in words how that is known."""

    seconds: float
    how: str


@dataclass(frozen=True)
class Left:
    """Runs that a row needs still, and the teachers that are missing: tuning's, and other seeds'."""

    row: Row
    tuning: int
    confirming: int
    tuning_teacher: tuple[TrialDir, ...]
    other_teachers: tuple[TrialDir, ...]


def left_of(row: Row, root: Root, *, retry_failed: bool = False) -> Left:
    """What the row needs still, by its files. While trials are left, every confirming run counts: who wins is open.

    With `retry_failed`, trials that failed for good count too.
    """
    journal = read_journal(row.directory)
    again = [n for n in journal.failed if retry_failed and not row.directory.trial(n).result.exists()]
    tuning = max(row.trials - journal.sampled, 0) + len(journal.open) + len(again)
    counting = [run for run in row.directory.final_runs() if run.result.exists() and not run.superseded.exists()]
    confirming = row.seeds if tuning else max(row.seeds - len(counting), 0)
    missing = [teacher for teacher in teacher_directories(row, root) if not teacher.result.exists()]
    first = teacher_directories(row, root)[:1] if tuning else []
    return Left(
        row,
        tuning,
        confirming,
        tuple(teacher for teacher in missing if teacher in first),
        tuple(teacher for teacher in missing if teacher not in first) if confirming else (),
    )


def run_seconds(directory: TrialDir, backend: str, *, prompt: bool) -> float | None:
    """What a finished run took on this backend, over all its attempts; None where it is not finished or ran elsewhere.

    Args:
        directory: the run's.
        backend: its name.
        prompt: jobs begin when they are submitted, so that starting Python counts; else the scheduler's word does.
    """
    attempts = read_attempts(directory)
    if not directory.result.exists() or not attempts or any(a.submitted.get("backend") != backend for a in attempts):
        return None
    total = 0.0
    for attempt in attempts:
        began = attempt.submitted.get("submitted") if prompt else attempt.ran.get("started")
        own = float(attempt.ran["ended"]) - float(began) if began and "ended" in attempt.ran else 0.0
        total += float(attempt.submitted.get("elapsed") or own)
    return total or None


def from_finished(row: Row, root: Root, backend: str, *, prompt: bool) -> Estimate | None:
    """A run of the row, from its own finished runs, else from those of the row that is most alike."""
    places = [row.directory, *(other for other in root.rows() if other.path != row.directory.path)]
    for place in places:
        record = find_record(place.row, RowRecord)
        facts = {} if record is None else as_written(record.identity)
        if not facts or not _alike(facts, row.identity):
            continue
        seconds = _measured([*place.trials(), *place.final_runs()], backend, prompt=prompt)
        if seconds:
            return _mean(seconds, place, row, facts["training"]["epochs"])
    return None


def _mean(seconds: Sequence[float], place: RowDir, row: Row, epochs: int) -> Estimate:
    whose = "its" if place.path == row.directory.path else f"{place.path.name}'s"
    scaled = "" if epochs == row.training.epochs else f", which have {count(epochs, 'epoch')}"
    mean = math.fsum(seconds) / len(seconds) * row.training.epochs / epochs
    return Estimate(mean, f"the mean of {whose} {count(len(seconds), 'finished run')}{scaled}")


def _alike(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    def teacher(identity: Mapping[str, Any]) -> Any:
        return identity.get("teacher") and identity["teacher"]["network"]

    same = all(theirs.get(key) == ours.get(key) for key in ALIKE) and teacher(theirs) == teacher(ours)
    return same and _recipe(theirs["training"]) == _recipe(ours["training"])


def _recipe(training: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in training.items() if key not in ("epochs", "learning_rate")}


def teacher_from_finished(config: Run, root: Root, backend: str, *, prompt: bool) -> Estimate | None:
    """A teacher, from those under the root that have its network and training, whatever their seed and epochs."""
    ours = config.model_dump(mode="json")
    scaled = []
    for place in root.teachers():
        theirs = read_json(place.config)
        if theirs is None or _kind_of_teacher(theirs) != _kind_of_teacher(ours):
            continue
        for seconds in _measured([place], backend, prompt=prompt):
            scaled.append(seconds * config.training.epochs / theirs["training"]["epochs"])
    return Estimate(math.fsum(scaled) / len(scaled), f"the mean of {len(scaled)} under this root") if scaled else None


def _kind_of_teacher(config: Mapping[str, Any]) -> tuple[Any, ...]:
    return (config["data"]["fingerprint"], config["network"], config.get("branch"), _recipe(config["training"]))


def _measured(directories: Iterable[TrialDir], backend: str, *, prompt: bool) -> list[float]:
    found = (run_seconds(directory, backend, prompt=prompt) for directory in directories)
    return [seconds for seconds in found if seconds is not None]


@dataclass(frozen=True)
class Forecast:
    """Seconds until all is done with so many slots, and slot-seconds in all."""

    makespan: float
    work: float


def forecast(
    left: Sequence[Left], runs: Mapping[str, float], teachers: Mapping[TrialDir, float], slots: int
) -> Forecast:
    """The work of all rows over the slots, or the rounds of the row that takes longest by itself.

    Args:
        left: the rows.
        runs: seconds of a run, by row name.
        teachers: seconds of each missing teacher.
        slots: runs at once.
    """
    wanted = {teacher for row in left for teacher in (*row.tuning_teacher, *row.other_teachers)}
    work = sum(teachers[teacher] for teacher in wanted)
    chains = []
    for row in left:
        seconds = runs[row.row.name]
        work += seconds * (row.tuning + row.confirming)
        tuned = sum(teachers[teacher] for teacher in row.tuning_teacher) + seconds * math.ceil(row.tuning / slots)
        taught = max((teachers[teacher] for teacher in row.other_teachers), default=0.0)
        chains.append(max(tuned, taught) + seconds * math.ceil(row.confirming / slots))
    return Forecast(remaining(work, slots, chains), work)


def show_estimate(
    left: Sequence[Left],
    runs: Mapping[str, Estimate | None],
    teachers: Mapping[TrialDir, Estimate | None],
    slots: int,
    gpus: int,
) -> None:
    """Print what is left and what it will take, or what is not known and how to find out.

    Args:
        left: the rows.
        runs: a run of each row, by name.
        teachers: each missing teacher.
        slots: runs at once.
        gpus: of each run.
    """
    if not any(row.tuning or row.confirming for row in left):
        print("left      nothing")
        return
    for row in left:
        if row.tuning or row.confirming:
            parts = [count(n, what) for n, what in ((row.tuning, "trial"), (row.confirming, "confirming run")) if n]
            print(f"left      {row.row.name}: {' and '.join(parts)}, {_describe(runs[row.row.name])}")
    for words in dict.fromkeys(_describe(estimate) for estimate in teachers.values()):
        number = sum(_describe(estimate) == words for estimate in teachers.values())
        print(f"left      {count(number, 'teacher')}, {words}")
    known = {name: e.seconds for name, e in runs.items() if e is not None}
    known_teachers = {place: e.seconds for place, e in teachers.items() if e is not None}
    needed = {row.row.name for row in left if row.tuning or row.confirming}
    if needed - known.keys() or teachers.keys() - known_teachers.keys():
        print("estimate  not possible yet; --dry-run --probe runs one epoch of each here, and tells")
        return
    ahead = forecast([row for row in left if row.row.name in known], known, known_teachers, slots)
    print(
        f"estimate  about {duration(ahead.makespan)} with {slots} at a time, if none waits in a queue; "
        f"{gpus * ahead.work / 3600:.2f} GPU-hours"
    )


def _describe(estimate: Estimate | None) -> str:
    if estimate is None:
        return "of unknown length: nothing like it has run under this root where it would run now"
    return f"{duration(estimate.seconds)} each ({estimate.how})"


def estimates_of(
    left: Sequence[Left], root: Root, backend: str, *, prompt: bool
) -> tuple[dict[str, Estimate | None], dict[TrialDir, Estimate | None]]:
    """What finished runs tell about a run of each row, by name, and about each missing teacher."""
    runs = {row.row.name: from_finished(row.row, root, backend, prompt=prompt) for row in left}
    teachers: dict[TrialDir, Estimate | None] = {}
    for row in left:
        config = row.row.teacher_config(TUNING_SEED)
        for teacher in (*row.tuning_teacher, *row.other_teachers):
            if teacher not in teachers and config is not None:
                teachers[teacher] = teacher_from_finished(config, root, backend, prompt=prompt)
    return runs, teachers
