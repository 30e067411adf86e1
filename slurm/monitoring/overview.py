"""What is going on under a root: trials joined with the queue, counted by row, failures by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from mmkd.metrics import best_trial
from mmkd.records import WinnerRecord
from mmkd.trial_state import State
from slurm.accounting import QueuedJob
from slurm.monitoring.collecting import Survey
from slurm.monitoring.remaining import Eta, GpuHours, Left, forecast, gpu_hours, slots_in_use
from slurm.monitoring.rows import Holder, Row
from slurm.monitoring.squeue_polling import Answer
from slurm.monitoring.trials import Trial
from slurm.monitoring.watching import BUSY, OPEN, Condition, Watched, watch


@dataclass(frozen=True)
class Best:
    """A row's best complete trial so far, on valid."""

    name: str
    value: float
    accuracy: float | None


@dataclass(frozen=True)
class RowCount:
    """How far a row is. `asked` counts tuning trials that were begun, `settled` those that will change no more."""

    row: Row
    asked: int
    settled: int
    confirmed: int
    busy: int
    waiting: int
    failed: int
    left: Left
    best: Best | None


@dataclass(frozen=True)
class FailureCount:
    """One class: attempts that ended so, trials that now stand so, and the latest."""

    failure: str
    attempts: int
    trials: int
    latest: Trial
    message: str


@dataclass(frozen=True)
class Picture:
    """All that is shown. `trials` are those that count: confirming runs of former winners are left out."""

    survey: Survey
    answer: Answer | None
    rows: tuple[RowCount, ...]
    trials: tuple[Watched, ...]
    teachers_trained: int
    teachers_needed: int
    teachers_left: int
    controllers: tuple[Holder, ...]
    controller_jobs: tuple[QueuedJob, ...]
    failures: tuple[FailureCount, ...]
    others: tuple[QueuedJob, ...]
    slots: float
    gpu_hours: GpuHours
    eta: Eta | str

    def count(self, *conditions: Condition) -> int:
        """Trials of these conditions."""
        return sum(watched.condition in conditions for watched in self.trials)

    def select(self, *conditions: Condition) -> list[Watched]:
        """The trials of these conditions."""
        return [watched for watched in self.trials if watched.condition in conditions]

    @property
    def left(self) -> int:
        """Runs that have not ended, teachers included, as far as is known now."""
        return sum(row.left.runs for row in self.rows) + self.teachers_left

    @property
    def finished(self) -> int:
        """Runs that are finished, teachers included."""
        return self.count(Condition.COMPLETE, Condition.PRUNED, Condition.DIVERGED)


def make_picture(survey: Survey, answer: Answer | None) -> Picture:
    """Join what the files and the queue say."""
    everything = [watch(trial, answer) for trial in survey.trials]
    winners = {row.directory.path.name: row.winner for row in survey.rows}
    trials = [watched for watched in everything if _counts(watched.trial, winners)]
    by_owner: dict[str, list[Watched]] = {}
    for watched in trials:
        by_owner.setdefault(watched.trial.place.owner, []).append(watched)
    rows = [count_row(row, by_owner.get(row.directory.path.name, [])) for row in survey.rows]
    teachers = [watched for watched in trials if watched.trial.place.kind == "teacher"]
    trained = sum(watched.condition is Condition.COMPLETE for watched in teachers)
    needed = max(teachers_needed(survey.rows), len(teachers))
    teachers_left = needed - sum(watched.condition not in OPEN for watched in teachers)
    known = {watched.job.id for watched in everything if watched.job}
    rest = [job for job in (answer.jobs.values() if answer else ()) if job.id not in known and not job.ended]
    controllers = {study.controller_job for study in survey.studies}
    slots = slots_in_use(everything, survey.taken)
    left = {row.row.directory.path.name: row.left for row in rows}
    return Picture(
        survey,
        answer,
        tuple(rows),
        tuple(trials),
        teachers_trained=trained,
        teachers_needed=needed,
        teachers_left=teachers_left,
        controllers=tuple(_controllers(survey.rows)),
        failures=tuple(count_failures(trials)),
        controller_jobs=tuple(job for job in rest if job.name in controllers),
        others=tuple(job for job in rest if job.name not in controllers),
        slots=slots,
        gpu_hours=gpu_hours(everything, survey),
        eta=forecast(everything, left, teachers_left, slots, survey.taken),
    )


def _counts(trial: Trial, winners: Mapping[str, WinnerRecord | None]) -> bool:
    """Whether a trial counts: all do but the confirming runs of a winner that is the winner no more."""
    winner = winners.get(trial.place.owner)
    return trial.place.kind != "confirm" or winner is None or trial.place.directory.path.name in winner.confirm.values()


def _controllers(rows: Sequence[Row]) -> Iterable[Holder]:
    """Who works on the rows, each once, as heard of last."""
    held = sorted((row.controller for row in rows if row.controller), key=lambda holder: -holder.heard)
    return {(holder.host, holder.pid): holder for holder in held}.values()


def count_row(row: Row, trials: Sequence[Watched]) -> RowCount:
    """How far a row is.

    What failed for good counts against the budget, as in the controller, and so is not left to do.
    """
    tuning = [watched for watched in trials if watched.trial.place.kind == "tuning"]
    confirm = [watched for watched in trials if watched.trial.place.kind == "confirm" and row.winner]
    begun = max(len(tuning), row.winner.trials if row.winner else 0)
    is_open = sum(watched.condition in OPEN for watched in tuning)
    seeds_left = max(row.seeds - sum(watched.condition not in OPEN for watched in confirm), 0)
    return RowCount(
        row,
        asked=len(tuning),
        settled=len(tuning) - is_open,
        confirmed=sum(watched.trial.state is State.FINISHED for watched in confirm),
        busy=sum(watched.condition in BUSY for watched in trials),
        waiting=sum(watched.condition is Condition.WAITING for watched in trials),
        failed=sum(watched.condition is Condition.FAILED for watched in trials),
        left=Left(max(row.trials - begun, 0) + is_open, seeds_left),
        best=best_of(row, tuning),
    )


def best_of(row: Row, tuning: Sequence[Watched]) -> Best | None:
    """The complete trial with the best selection metric, the earliest among equals."""
    complete = [watched.trial for watched in tuning if watched.condition is Condition.COMPLETE]
    values = {number: trial.value for number, trial in enumerate(complete) if trial.value is not None}
    best = best_trial(row.selection, values)
    return None if best is None else Best(complete[best].place.name, values[best], complete[best].accuracy)


def teachers_needed(rows: Sequence[Row]) -> int:
    """One of each family for tuning, and one for each seed."""
    with_teacher = sorted((row for row in rows if row.family), key=lambda row: row.family)
    return sum(1 + max(row.seeds for row in same) for _, same in groupby(with_teacher, key=lambda row: row.family))


def count_failures(trials: Sequence[Watched]) -> list[FailureCount]:
    """Failed attempts by class, the most frequent first."""
    failed = [(a, w) for w in trials for a in w.trial.attempts if a.end and a.end != "complete"]
    standing = Counter(
        w.trial.last.end for w in trials if w.condition in (Condition.FAILED, Condition.INTERRUPTED) and w.trial.last
    )
    found = []
    for failure, number in Counter(attempt.end for attempt, _ in failed).most_common():
        attempt, watched = max((p for p in failed if p[0].end == failure), key=lambda p: p[0].ended or 0.0)
        found.append(FailureCount(failure, number, standing[failure], watched.trial, attempt.message))
    return found
