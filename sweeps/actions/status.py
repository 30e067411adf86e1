"""Implement --status. Read-only: a study's files without a lock, and one question to Slurm where it has jobs."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mmkd.attempts import gpu_seconds_of, last_attempt
from mmkd.finished import attempts_of
from mmkd.formatting import columns, count, shortened
from mmkd.lock import read_holder
from mmkd.metrics import best_trial
from mmkd.metrics_log import last_metrics
from mmkd.records import FinishedTrial, RowRecord, find_record
from mmkd.rundir import RowDir, TrialDir
from mmkd.trial_state import State, trial_state
from slurm.accounting import NoAnswer, QueuedJob, squeue
from slurm.local_backend import LocalBackend, host_of
from slurm.monitoring.workers import describe_workers, idle_gpu_seconds
from sweeps.controller.job_names import controller_job, handle_of, worker_job
from sweeps.controller.winner import read_tuned
from sweeps.launched_study import RecordedRow, RecordedStudy, without_end

PATIENCE = 10.0
"""Seconds to wait for squeue."""


@dataclass(frozen=True)
class Journal:
    """A row's trials by its journal: those `sampled` (a failed one and its retry are one), `reported`, and `open`."""

    sampled: int = 0
    reported: int = 0
    open: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    best: tuple[int, float] | None = None
    """The best complete trial's number and value, by validation."""


class _NobodyWrites:
    """A journal lock that refuses to write."""

    def acquire(self) -> bool:
        raise PermissionError("the journal was opened to be read")

    def release(self) -> None:
        """Nothing is held."""


def read_journal(row: RowDir, lines: Mapping[str, FinishedTrial]) -> Journal:
    """The row's Optuna study, read while its controller may write it; once it is tuned, from its lines."""
    tuned = read_tuned(row, lines)
    if tuned is not None:
        number, failed = tuned.winner.trials, tuple(sorted(tuned.diverged + tuned.failed))
        return Journal(number, number, failed=failed, best=(tuned.winner.trial, tuned.winner.value))
    if not row.journal.exists():
        return Journal()
    backend = JournalFileBackend(str(row.journal), lock_obj=_NobodyWrites())  # type: ignore[arg-type]
    try:
        study = optuna.load_study(study_name=row.path.name, storage=JournalStorage(backend))
    except KeyError:
        return Journal()  # begun, and killed before its first line
    trials = list(study.get_trials(deepcopy=False))
    replaced = {t.user_attrs["retry_of"] for t in trials if "retry_of" in t.user_attrs}
    trials = [t for t in trials if t.state is not TrialState.WAITING and t.number not in replaced]
    complete = {t.number: float(t.value) for t in trials if t.state is TrialState.COMPLETE and t.value is not None}
    selection = selection_of(row)
    best = best_trial(selection, complete) if selection else None
    return Journal(
        sampled=len(trials),
        reported=sum(t.state.is_finished() for t in trials),
        open=tuple(t.number for t in trials if t.state is TrialState.RUNNING),
        failed=tuple(t.number for t in trials if t.state is TrialState.FAIL),
        best=None if best is None else (best, complete[best]),
    )


def selection_of(row: RowDir) -> str:
    """The row's selection metric; "" where its record is gone."""
    record = find_record(row.row, RowRecord)
    return "" if record is None else record.identity.selection


def show_status(study: RecordedStudy, *, each_replicate: bool = False) -> None:
    """Print how far the study is, who works on it, and what it has cost; a line for each row or each replicate."""
    queue, complaint = _ask_slurm(study)
    print(f"{study.name}: {study.title}")
    print(f"root        {study.root.path}")
    for line in [*_controllers(study), *_detached(study, queue)] or ["none is at work"]:
        print(f"controller  {line}")
    for line in _row_lines(study.rows, each_replicate=each_replicate):
        print(line)
    states = count_states(study.teachers())
    if states:
        unfinished = [f"{states[state]} {_WORDS[state]}" for state in _WORDS if states[state]]
        tuned = max(row.candidates for row in study.rows)
        best = [f"the best of {tuned} is chosen in each replicate"] if tuned else []
        print(f"teachers    {', '.join([f'{states[State.FINISHED]} of {states.total()} trained', *unfinished, *best])}")
    alive = without_end(study.unlisted())
    name_of_workers = worker_job(study.root, study.name)
    if workers := describe_workers(study.root, [job for job in queue or () if job.name == name_of_workers]):
        print(f"workers     {workers}")
    for line in _jobs(alive, queue, complaint):
        print(f"jobs        {line}")
    idle = idle_gpu_seconds(study.root, study.name)
    listed = (attempt for row in study.rows for line in row.lines.values() for attempt in attempts_of(line))
    spent = idle + gpu_seconds_of(study.unlisted()) + sum(a.submitted.gpu_seconds or 0.0 for a in listed)
    running = sum(_gpu_seconds(directory) for directory in alive)
    if not spent + running:
        return  # on CPUs
    print(
        f"GPU-hours   {(spent + running) / 3600:.2f}, of which {running / 3600:.2f} by attempts that have not ended"
        + (f" and {idle / 3600:.2f} by free slots of workers" if idle else "")
    )


def _gpu_seconds(directory: TrialDir) -> float:
    """GPU-seconds of an attempt that has not ended; of one on another host, until its last epoch."""
    attempt = last_attempt(directory)
    return attempt.gpus * attempt.seconds(time.time(), last_metrics(directory).get("time"))


def _ask_slurm(study: RecordedStudy) -> tuple[list[QueuedJob] | None, str]:
    """All jobs of the study's owner, or None and why not.

    Slurm is left alone where nothing of the study ever ran on it.
    """
    open_trials = map(last_attempt, without_end(study.unlisted()))
    on_slurm = study.root.workers.exists() or any(attempt.submitted.backend == "slurm" for attempt in open_trials)
    if not on_slurm and not study.root.controller_log(study.name).exists():
        return None, ""
    try:
        return squeue(str(study.root.study(study.name).stat().st_uid), patience=PATIENCE), ""
    except NoAnswer as error:
        return None, str(error).replace("\n", "; ")


def count_states(directories: Iterable[TrialDir]) -> Counter[State]:
    """Trials by state."""
    return Counter(map(trial_state, directories))


def _controllers(study: RecordedStudy) -> list[str]:
    """One line for each process that holds rows, or that died and left their locks."""
    lines: dict[str, list[str]] = {}
    for row in study.rows:
        found = read_holder(row.directory.lock)
        if found is not None:
            heard = f"last heartbeat {found.age:.0f} s ago"
            how = heard if found.alive else f"not responding ({heard}): run the launch command again to resume"
            lines.setdefault(f"{found}, {how}", []).append(row.title)
    everything = len(study.rows)
    return [
        line if len(titles) == everything else f"{line}; of {shortened(titles, ', ')} alone"
        for line, titles in lines.items()
    ]


def _detached(study: RecordedStudy, queue: list[QueuedJob] | None) -> list[str]:
    name = controller_job(study.root, study.name)
    return [
        f"detached: job {job.id} {job.state}{_why(job)}" for job in queue or () if job.name == name and not job.ended
    ]


def _why(job: QueuedJob) -> str:
    reason = "" if job.reason in ("", "None") else f" ({job.reason})"
    return reason or (f" on {job.node}" if job.node else "")


_WORDS = {
    State.RUNNING: "running", State.PENDING: "pending", State.RETRY_DUE: "to be retried", State.FAILED: "failed",
    State.SAMPLED: "not begun",
}  # fmt: skip
_ROW_HEAD = ("row", "reported", "open", "running", "retry due", "failed", "final runs", "best valid")


@dataclass(frozen=True)
class _Progress:
    """A replicate's tuning trials, with the states of the open and failed ones, and its final runs that count."""

    row: RecordedRow
    reported: int
    budget: int
    open: int
    running: int
    due: int
    failed: int
    diverged: int
    final: int
    best: tuple[int, float] | None

    @property
    def is_done(self) -> bool:
        """True if it has nothing left to run."""
        return self.reported == self.budget and self.final >= len(self.row.seeds)


def _row_lines(rows: Iterable[RecordedRow], *, each_replicate: bool) -> list[str]:
    """The rows' table: a line for each replicate, or for each row with sums over its replicates."""
    groups: dict[str, list[_Progress]] = {}
    for row in rows:
        groups.setdefault(row.title if each_replicate else row.name, []).append(_progress(row))
    if all(len(group) == 1 for group in groups.values()):
        return columns([_ROW_HEAD, *(_describe_row(title, group) for title, group in groups.items())])
    lines = []
    for title, group in groups.items():
        name, *cells = _describe_row(title, group)
        lines.append((name, f"{sum(one.is_done for one in group)}/{len(group)} done", *cells))
    return columns([(_ROW_HEAD[0], "replicates", *_ROW_HEAD[1:]), *lines])


def _describe_row(title: str, replicates: Sequence[_Progress]) -> tuple[str, ...]:
    """A row's line, by `_ROW_HEAD`: sums over its replicates, and the mean of their best values."""
    diverged = sum(one.diverged for one in replicates)
    failed = f"{sum(one.failed for one in replicates)}" + (f" ({diverged} diverged)" if diverged else "")
    found = [one.best for one in replicates if one.best is not None]
    how = f"trial {found[0][0]}" if len(replicates) == 1 and found else f"mean of {len(found)}"
    metric = selection_of(replicates[0].row.directory)
    best = f"{metric} {fmean(value for _, value in found):.4f} ({how})" if found else "-"
    budget = f"{sum(one.reported for one in replicates)}/{sum(one.budget for one in replicates)}"
    states = (sum(one.open for one in replicates), sum(one.running for one in replicates))
    due = str(sum(one.due for one in replicates))
    seeds = f"{sum(one.final for one in replicates)}/{sum(len(one.row.seeds) for one in replicates)}"
    return title, budget, *map(str, states), due, failed, seeds, best


def _progress(row: RecordedRow) -> _Progress:
    journal = read_journal(row.directory, row.lines)
    final = [run for run in row.directory.final_runs() if not run.superseded.exists()]
    states = count_states([row.directory.trial(n) for n in (*journal.open, *journal.failed)] + final)
    diverged = sum(row.directory.trial(number).result.exists() for number in journal.failed)
    return _Progress(
        row,
        reported=journal.reported,
        budget=max(row.trials, journal.sampled),
        open=len(journal.open),
        running=states[State.RUNNING],
        due=states[State.RETRY_DUE],
        failed=states[State.FAILED] + diverged,
        diverged=diverged,
        final=sum(run.result.exists() for run in final),
        best=journal.best,
    )


def _jobs(alive: list[TrialDir], queue: list[QueuedJob] | None, complaint: str) -> list[str]:
    """Attempts without an end, counted by the words of their schedulers."""
    if complaint:
        return [f"{count(len(alive), 'attempt')} without an end; Slurm does not answer: {complaint}"]
    states = Counter(_state_of_job(directory, queue or []) for directory in alive)
    return [f"{number} {state}" for state, number in states.items()] or ["none"]


def _state_of_job(directory: TrialDir, queue: Iterable[QueuedJob]) -> str:
    attempt = last_attempt(directory)
    backend, handle = attempt.submitted.backend, handle_of(attempt)
    if backend == "slurm":
        jobs = [job for job in queue if job.name == handle.name and handle.id in ("", job.id)]
        if not jobs:
            return "not in the queue: run the launch command again to find out why"
        return jobs[-1].state if jobs[-1].state == "RUNNING" else f"{jobs[-1].state}{_why(jobs[-1])}"
    if backend != "local":
        return "in a controller's own process"
    if handle.id and host_of(handle.id) != socket.gethostname():
        return f"on {host_of(handle.id)}, seen from there alone"
    report = LocalBackend().poll([handle]).get(handle)
    return "running" if report is not None and report.alive else "not running any more: launch again to resume"
