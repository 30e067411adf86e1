"""How a study stands, told from its files without a lock or a write, and one question to Slurm where it has jobs."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mmkd.attempts import Attempt, current_attempt
from mmkd.files import read_json
from mmkd.formatting import columns, count
from mmkd.metrics import best_trial
from mmkd.records import RowRecord, find_record
from mmkd.rundir import RowDir, TrialDir
from mmkd.trial_state import State, trial_state
from slurm.accounting import NoAnswer, QueuedJob, squeue
from slurm.backend import Handle
from slurm.local_backend import LocalBackend, host_of
from sweeps.controller.retries import controller_job, gpu_seconds_of
from sweeps.controller.row_locks import holder
from sweeps.records import RecordedRow, RecordedStudy, without_end


@dataclass(frozen=True)
class Told:
    """What a row's journal says: trials `asked` for (failed ones too, those tried again once), `told`, and `open`."""

    asked: int = 0
    told: int = 0
    open: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    best: tuple[int, float] | None = None
    """The best complete trial's number and value, by validation."""


class _NobodyWrites:
    """In the place of a journal's lock."""

    def acquire(self) -> bool:
        raise PermissionError("the journal was opened to be read")

    def release(self) -> None:
        """Nothing is held."""


def read_journal(row: RowDir) -> Told:
    """The row's Optuna study, read while its controller may write it."""
    if not row.journal.exists():
        return Told()
    backend = JournalFileBackend(str(row.journal), lock_obj=_NobodyWrites())  # type: ignore[arg-type]
    try:
        study = optuna.load_study(study_name=row.path.name, storage=JournalStorage(backend))
    except KeyError:
        return Told()  # begun, and killed before its first line
    trials = list(study.get_trials(deepcopy=False))
    replaced = {t.user_attrs["retry_of"] for t in trials if "retry_of" in t.user_attrs}
    trials = [t for t in trials if t.state is not TrialState.WAITING and t.number not in replaced]
    complete = {t.number: float(t.value) for t in trials if t.state is TrialState.COMPLETE and t.value is not None}
    selection = selection_of(row)
    best = best_trial(selection, complete) if selection else None
    return Told(
        asked=len(trials),
        told=sum(t.state.is_finished() for t in trials),
        open=tuple(t.number for t in trials if t.state is TrialState.RUNNING),
        failed=tuple(t.number for t in trials if t.state is TrialState.FAIL),
        best=None if best is None else (best, complete[best]),
    )


def selection_of(row: RowDir) -> str:
    """The row's selection metric; "" where its record is gone."""
    record = find_record(row.row, RowRecord)
    return "" if record is None else record.identity.selection


def show_status(study: RecordedStudy) -> None:
    """Print how the study stands."""
    queue, complaint = _ask_slurm(study)
    print(f"{study.name}: {study.title}")
    print(f"root        {study.root.path}")
    for line in [*_controllers(study), *_detached(study, queue)] or ["none is at work"]:
        print(f"controller  {line}")
    for line in columns([_ROW_HEAD, *(_describe_row(row) for row in study.rows)]):
        print(line)
    states = Counter(trial_state(teacher) for teacher in study.teachers())
    if states:
        unfinished = [f"{n} {_WORDS[state]}" for state, n in states.items() if state in _WORDS]
        print(f"teachers    {', '.join([f'{states[State.FINISHED]} of {states.total()} trained', *unfinished])}")
    alive = without_end(study.directories())
    for line in _jobs(alive, queue, complaint):
        print(f"jobs        {line}")
    spent, running = gpu_seconds_of(study.directories()), sum(_gpu_seconds_so_far(d) for d in alive)
    print(f"GPU-hours   {(spent + running) / 3600:.2f}, of which {running / 3600:.2f} by attempts that have not ended")


def _ask_slurm(study: RecordedStudy) -> tuple[list[QueuedJob] | None, str]:
    """All our jobs, or None and why not; Slurm is left alone where nothing of the study ever ran on it."""
    asked = any(_submitted(d).get("backend") == "slurm" for d in without_end(study.directories()))
    if not asked and not study.root.controller_log(study.name).exists():
        return None, ""
    try:
        return squeue(), ""
    except NoAnswer as error:
        return None, str(error).replace("\n", "; ")


def _submitted(directory: TrialDir) -> dict[str, object]:
    return dict(read_json(directory.controller_record(current_attempt(directory))) or {})


def _controllers(study: RecordedStudy) -> list[str]:
    """A line a process that holds rows, or that died with them in its hands."""
    lines: dict[str, list[str]] = {}
    for row in study.rows:
        found = holder(row.directory.lock)
        if found is not None:
            heard = f"heard of {found.age:.0f} s ago"
            how = heard if found.alive else f"gone without a word, {heard}: the launch command goes on where it was"
            lines.setdefault(f"process {found.pid} on {found.host}, {how}", []).append(row.name)
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
    State.RUNNING: "running", State.SUBMITTED: "waiting", State.FAILED: "stopped before its end", State.CREATED: "due",
}  # fmt: skip
_ROW_HEAD = ("row", "told", "open", "running", "failed", "confirmed", "best valid")


def _describe_row(row: RecordedRow) -> tuple[str, ...]:
    """A row's line, by `_ROW_HEAD`; open trials and seeds count as running from the start of their job on."""
    told = read_journal(row.directory)
    counting = [run for run in row.directory.final_runs() if not run.superseded.exists()]
    due = [*(row.directory.trial(number) for number in told.open), *counting]
    running = sum(trial_state(directory) is State.RUNNING for directory in due)
    diverged = sum(row.directory.trial(number).result.exists() for number in told.failed)
    failed = f"{len(told.failed)}" + (f" ({diverged} diverged)" if diverged else "")
    best = "-" if told.best is None else f"{selection_of(row.directory)} {told.best[1]:.4f} (trial {told.best[0]})"
    seeds = f"{sum(run.result.exists() for run in counting)}/{len(row.seeds)}"
    budget = f"{told.told}/{max(row.trials, told.asked)}"
    return row.name, budget, str(len(told.open)), str(running), failed, seeds, best


def _jobs(alive: list[TrialDir], queue: list[QueuedJob] | None, complaint: str) -> list[str]:
    """What the schedulers say of the attempts that nobody has seen end."""
    if complaint:
        return [f"{count(len(alive), 'attempt')} without an end; Slurm does not answer: {complaint}"]
    states = Counter(_state_of_job(directory, queue or []) for directory in alive)
    return [f"{number} {state}" for state, number in states.items()] or ["none"]


def _state_of_job(directory: TrialDir, queue: Iterable[QueuedJob]) -> str:
    facts = _submitted(directory)
    handle = Handle(str(facts.get("name", "")), str(facts.get("job", "")))
    if facts.get("backend") == "slurm":
        jobs = [job for job in queue if job.name == handle.name and handle.id in ("", job.id)]
        if not jobs:
            return "not in the queue: a relaunch sees what became of it"
        return jobs[-1].state if jobs[-1].state == "RUNNING" else f"{jobs[-1].state}{_why(jobs[-1])}"
    if facts.get("backend") != "local":
        return "in a controller's own process"
    if handle.id and host_of(handle.id) != socket.gethostname():
        return f"on {host_of(handle.id)}, seen from there alone"
    report = LocalBackend().poll([handle]).get(handle)
    return "running" if report is not None and report.alive else "gone without a word: a relaunch goes on with it"


def _gpu_seconds_so_far(directory: TrialDir) -> float:
    """What an attempt that has not ended has used of its GPUs, by its own clock."""
    number = current_attempt(directory)
    attempt = Attempt(number, _submitted(directory), read_json(directory.job_record(number)) or {})
    started = attempt.ran.get("started")
    return 0.0 if started is None else float(attempt.submitted.get("gpus", 0)) * (time.time() - float(started))
