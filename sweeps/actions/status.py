"""Implement --status. Read-only: a study's files without a lock, and one question to Slurm where it has jobs."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mmkd.attempts import gpu_seconds_of, last_attempt
from mmkd.finished import attempts_of
from mmkd.formatting import columns, count
from mmkd.lock import read_holder
from mmkd.metrics import best_trial
from mmkd.records import FinishedTrial, RowRecord, find_record
from mmkd.rundir import RowDir, TrialDir
from mmkd.trial_state import State, trial_state
from slurm.accounting import NoAnswer, QueuedJob, squeue
from slurm.local_backend import LocalBackend, host_of
from slurm.monitoring.workers import describe_workers, idle_gpu_seconds
from sweeps.controller.job_names import controller_job, handle_of, worker_job
from sweeps.controller.tuned import read_tuned
from sweeps.launched_study import RecordedRow, RecordedStudy, without_end


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


def show_status(study: RecordedStudy) -> None:
    """Print how far the study is, who works on it, and what it has cost."""
    queue, complaint = _ask_slurm(study)
    print(f"{study.name}: {study.title}")
    print(f"root        {study.root.path}")
    for line in [*_controllers(study), *_detached(study, queue)] or ["none is at work"]:
        print(f"controller  {line}")
    for line in columns([_ROW_HEAD, *(_describe_row(row) for row in study.rows)]):
        print(line)
    states = count_states(study.teachers())
    if states:
        unfinished = [f"{states[state]} {_WORDS[state]}" for state in _WORDS if states[state]]
        print(f"teachers    {', '.join([f'{states[State.FINISHED]} of {states.total()} trained', *unfinished])}")
    alive = without_end(study.unlisted())
    name_of_workers = worker_job(study.root, study.name)
    if workers := describe_workers(study.root, [job for job in queue or () if job.name == name_of_workers]):
        print(f"workers     {workers}")
    for line in _jobs(alive, queue, complaint):
        print(f"jobs        {line}")
    now, idle = time.time(), idle_gpu_seconds(study.root, study.name)
    listed = (attempt for row in study.rows for line in row.lines.values() for attempt in attempts_of(line))
    spent = idle + gpu_seconds_of(study.unlisted()) + sum(a.submitted.gpu_seconds or 0.0 for a in listed)
    running = sum(attempt.gpus * attempt.seconds(now) for attempt in map(last_attempt, alive))
    print(
        f"GPU-hours   {(spent + running) / 3600:.2f}, of which {running / 3600:.2f} by attempts that have not ended"
        + (f" and {idle / 3600:.2f} by free slots of workers" if idle else "")
    )


def _ask_slurm(study: RecordedStudy) -> tuple[list[QueuedJob] | None, str]:
    """All our jobs, or None and why not; Slurm is left alone where nothing of the study ever ran on it."""
    open_trials = map(last_attempt, without_end(study.unlisted()))
    on_slurm = study.root.workers.exists() or any(attempt.submitted.backend == "slurm" for attempt in open_trials)
    if not on_slurm and not study.root.controller_log(study.name).exists():
        return None, ""
    try:
        return squeue(), ""
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
            lines.setdefault(f"{found}, {how}", []).append(row.name)
    everything = len(study.rows)
    return [
        line if len(names) == everything else f"{line}; of {', '.join(names)} alone" for line, names in lines.items()
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


def _describe_row(row: RecordedRow) -> tuple[str, ...]:
    """A row's line, by `_ROW_HEAD`: states of its open and failed tuning trials and of the final runs that count."""
    journal = read_journal(row.directory, row.lines)
    final = [run for run in row.directory.final_runs() if not run.superseded.exists()]
    states = count_states([row.directory.trial(n) for n in (*journal.open, *journal.failed)] + final)
    diverged = sum(row.directory.trial(number).result.exists() for number in journal.failed)
    failed = f"{states[State.FAILED] + diverged}" + (f" ({diverged} diverged)" if diverged else "")
    number, value = journal.best or (None, 0.0)
    best = "-" if number is None else f"{selection_of(row.directory)} {value:.4f} (trial {number})"
    seeds = f"{sum(run.result.exists() for run in final)}/{len(row.seeds)}"
    budget = f"{journal.reported}/{max(row.trials, journal.sampled)}"
    running, due = str(states[State.RUNNING]), str(states[State.RETRY_DUE])
    return row.name, budget, str(len(journal.open)), running, due, failed, seeds, best


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
