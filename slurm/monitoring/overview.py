"""Join trials with the queue; count them by row, and failures by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from mmkd.lock import Holder
from mmkd.metrics import best_trial
from mmkd.records import WinnerRecord
from mmkd.result_file import Status
from mmkd.rundir import Root
from mmkd.trial_state import State
from slurm.accounting import QueuedJob
from slurm.monitoring.collecting import Survey
from slurm.monitoring.remaining import Eta, GpuHours, Left, forecast, gpu_hours, slots_in_use
from slurm.monitoring.rows import Row
from slurm.monitoring.trials import Trial
from slurm.monitoring.watching import Answer, Sign, Watched, watch
from slurm.monitoring.workers import describe_workers


@dataclass(frozen=True)
class RowCount:
    """The progress of a replicate of a row: its tuning trials and its final runs.

    `sampled` tuning trials were, `ended` of them have ended. `best` is the best complete tuning trial so far, on valid.
    """

    row: Row
    sampled: int
    ended: int
    final: int
    busy: int
    pending: int
    failed: int
    left: Left
    best: Trial | None


@dataclass(frozen=True)
class RowLine:
    """The progress of a row: sums over some of its replicates, or one of them."""

    counts: tuple[RowCount, ...]

    @property
    def first(self) -> Row:
        """The first of the replicates."""
        return self.counts[0].row

    @property
    def title(self) -> str:
        """The row's name, or the title of its only replicate."""
        return self.first.title if len(self.counts) == 1 else self.first.name

    @property
    def done(self) -> int:
        """Replicates that have begun and have nothing left."""
        return sum(count.row.is_begun and not count.left.runs for count in self.counts)

    @property
    def left(self) -> int:
        """Runs that have not ended."""
        return sum(count.left.runs for count in self.counts)

    def sum(self, number: Callable[[RowCount], int]) -> int:
        """A number, summed over the replicates."""
        return sum(map(number, self.counts))

    def mean_of_best(self, value: Callable[[Trial], float | None]) -> float | None:
        """A value of each replicate's best trial, averaged."""
        found = [value(count.best) for count in self.counts if count.best]
        known = [one for one in found if one is not None]
        return fmean(known) if known else None

    @property
    def best_of(self) -> str:
        """The best trial's name; with several replicates, of how many the best trial's value is known."""
        best = [count.best for count in self.counts if count.best]
        if len(self.counts) == 1:
            return best[0].entry.name if best else ""
        return f"mean of {len(best)}" if best else ""


def row_lines(counts: Sequence[RowCount], *, each_replicate: bool) -> list[RowLine]:
    """A line for each row, or for each replicate."""
    groups: dict[str, list[RowCount]] = {}
    for count in counts:
        groups.setdefault(count.row.title if each_replicate else count.row.name, []).append(count)
    return [RowLine(tuple(group)) for group in groups.values()]


@dataclass(frozen=True)
class FailureCount:
    """One class: the attempts that ended so, the trials whose last attempt did, and the latest."""

    failure: str
    attempts: int
    trials: int
    latest: Trial
    message: str


@dataclass(frozen=True)
class Overview:
    """All that is shown. `trials` are those that count: final runs of former winners are left out."""

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
    workers: str
    slots: float
    gpu_hours: GpuHours
    eta: Eta | str

    def count(self, *words: State | Sign | Status) -> int:
        """Number of the trials that are shown with these words."""
        return len(self.select(*words))

    def select(self, *words: State | Sign | Status) -> list[Watched]:
        """The trials that are shown with these words."""
        return [watched for watched in self.trials if watched.shown in words]

    @property
    def busy(self) -> int:
        """Trials that have a slot."""
        return sum(watched.is_busy for watched in self.trials)

    @property
    def left(self) -> int:
        """Runs that have not ended, teachers included, as far as is known now."""
        return sum(row.left.runs for row in self.rows) + self.teachers_left

    @property
    def finished(self) -> int:
        """Runs that are finished, teachers included."""
        return self.count(*Status)


def make_overview(survey: Survey, answer: Answer | None) -> Overview:
    """Join a survey of the files with squeue's answer."""
    everything = [watch(trial, answer) for trial in survey.trials]
    winners = {row.directory.path.name: row.winner for row in survey.rows}
    trials = [watched for watched in everything if _counts(watched, winners)]
    by_owner: dict[str, list[Watched]] = {}
    for watched in trials:
        by_owner.setdefault(watched.trial.entry.owner, []).append(watched)
    rows = [count_row(row, by_owner.get(row.directory.path.name, [])) for row in survey.rows]
    teachers = [watched for watched in trials if watched.trial.entry.kind == "teacher"]
    trained = sum(watched.shown is Status.COMPLETE for watched in teachers)
    needed = max(teachers_needed(survey.rows), len(teachers))
    teachers_left = needed - sum(not watched.is_open for watched in teachers)
    known = {watched.job.id for watched in everything if watched.job}
    ours = {attempt.submitted.name for watched in everything for attempt in watched.trial.attempts}  # just ended too
    queue = tuple(answer.jobs.values()) if answer else ()
    rest = [job for job in queue if job.id not in known and job.name not in ours and not job.ended]
    controllers = {study.controller_job for study in survey.studies}
    workers = {study.worker_job for study in survey.studies}
    held = sorted((row.controller for row in survey.rows if row.controller), key=lambda holder: -holder.age)
    slots = slots_in_use(everything, survey.taken)
    left = {row.row.directory.path.name: row.left for row in rows}
    return Overview(
        survey,
        answer,
        tuple(rows),
        tuple(trials),
        teachers_trained=trained,
        teachers_needed=needed,
        teachers_left=teachers_left,
        controllers=tuple({(holder.host, holder.pid): holder for holder in held}.values()),  # with the last heartbeat
        failures=tuple(count_failures(trials)),
        controller_jobs=tuple(job for job in rest if job.name in controllers),
        others=tuple(job for job in rest if job.name not in controllers | workers),
        workers=describe_workers(Root(survey.root), [job for job in queue if job.name in workers]),
        slots=slots,
        gpu_hours=gpu_hours(everything, survey),
        eta=forecast(everything, left, teachers_left, slots, survey.taken),
    )


def _counts(watched: Watched, winners: Mapping[str, WinnerRecord | None]) -> bool:
    """True of all but final runs of a former winner: those that winner.json does not name, or that are marked."""
    trial = watched.trial
    winner = winners.get(trial.entry.owner)
    if watched.state is State.SUPERSEDED:
        return False
    return trial.entry.kind != "confirm" or winner is None or trial.entry.directory.path.name in winner.confirm.values()


def count_row(row: Row, trials: Sequence[Watched]) -> RowCount:
    """Count a row's trials.

    A trial without retries left counts against the budget, as in the controller, and so is not left to do.
    """
    tuning = [watched for watched in trials if watched.trial.entry.kind == "tuning"]
    confirm = [watched for watched in trials if watched.trial.entry.kind == "confirm" and row.winner]
    begun = max(len(tuning), row.winner.trials if row.winner else 0)
    is_open = sum(watched.is_open for watched in tuning)
    seeds_left = max(row.seeds - sum(not watched.is_open for watched in confirm), 0)
    return RowCount(
        row,
        sampled=len(tuning),
        ended=len(tuning) - is_open,
        final=sum(watched.state is State.FINISHED for watched in confirm),
        busy=sum(watched.is_busy for watched in trials),
        pending=sum(watched.shown is State.PENDING for watched in trials),
        failed=sum(watched.state is State.FAILED for watched in trials),
        left=Left(max(row.trials - begun, 0) + is_open, seeds_left) if row.is_begun else Left(0, 0),
        best=best_of(row, tuning),
    )


def best_of(row: Row, tuning: Sequence[Watched]) -> Trial | None:
    """The complete trial with the best selection metric, the earliest among equals."""
    complete = [watched.trial for watched in tuning if watched.shown is Status.COMPLETE]
    values = {number: trial.value for number, trial in enumerate(complete) if trial.value is not None}
    best = best_trial(row.selection, values)
    return None if best is None else complete[best]


def teachers_needed(rows: Sequence[Row]) -> int:
    """One of each family and replicate for tuning, or several to choose from, and one for each seed."""

    def shared_by(row: Row) -> tuple[str, int]:
        return row.family, row.replicate

    with_teacher = sorted((row for row in rows if row.family), key=shared_by)
    groups = [list(same) for _, same in groupby(with_teacher, key=shared_by)]
    return sum(max(1, *(row.candidates for row in same)) + max(row.seeds for row in same) for same in groups)


def count_failures(trials: Sequence[Watched]) -> list[FailureCount]:
    """Failed attempts by class, the most frequent first."""
    failed = [(a.end, a, w.trial) for w in trials for a in w.trial.attempts if a.end and a.end != "complete"]
    standing = Counter(w.trial.last.end for w in trials if w.shown in (State.FAILED, State.RETRY_DUE) and w.trial.last)
    found = []
    for failure, number in Counter(end for end, _, _ in failed).most_common():
        alike = [(attempt, trial) for end, attempt, trial in failed if end == failure]
        attempt, trial = max(alike, key=lambda pair: pair[0].ended or 0.0)
        found.append(FailureCount(failure, number, standing[failure], trial, attempt.message))
    return found
