"""Work on one row: find its trials that are due and record their outcome."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from mmkd.attempts import gpu_seconds_of, last_attempt, read_attempts
from mmkd.config import from_json, identity
from mmkd.errors import UserError
from mmkd.failures import Failure
from mmkd.files import remove_leftovers, write_text
from mmkd.finished import attempts_of
from mmkd.lock import FileLock
from mmkd.metrics_log import read_curve
from mmkd.records import RowRecord, find_record, write_record
from mmkd.result_file import Result, Status, clean_up, has_lost_result, usable_result
from mmkd.rundir import TrialDir
from mmkd.trial_state import State, decide, is_unnoted, why_failed
from sweeps.controller.failed_rows import has_only_failures, set_aside_failures
from sweeps.controller.finished_list import FinishedList
from sweeps.controller.optuna_study import Tuning
from sweeps.controller.row_locks import try_lock
from sweeps.controller.tasks import Task, final_tasks, stored_parameters, tuning_task
from sweeps.controller.winner import Tuned, read_tuned, write_winner
from sweeps.rows import TUNING_SEED, Row, seed_within, teacher_directories, tuning_teachers

HOPELESS = 3
"""A row fails once so many trials failed and none completed: the cause is not the parameters. One bug is enough."""

REPORTED = ("loss", "accuracy", "weighted_f1", "macro_f1")
"""Validation metrics of a trial that are reported to Optuna beside its value."""


class RowWork:
    """A row that this controller works on: holds its lock, its Optuna study and its open trials.

    A row on which nothing is left to do needs no lock.

    Args:
        row: the row.
        parallel: number of slots.
        study_file: copied beside the row when it begins.
        study: name of the study's table, which the lock shows.
        lock: the row's lock, if it was tried before.

    Raises:
        LockHeld: another controller works on this row.
    """

    def __init__(
        self, row: Row, parallel: int, study_file: Path, study: str = "", lock: FileLock | None = None
    ) -> None:
        self.row = row
        self.launch = ""
        """The word of the controller's launch, see `trial_state`."""
        self.directory = row.directory
        self.directory.path.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.directory.lock, purpose=study) if lock is None else lock
        held = try_lock(self.lock)
        if held is not None and not self.directory.winner.exists():
            raise held
        self.is_locked = held is None
        self.finished = FinishedList(self.directory, self.lock)
        if self.is_locked:
            remove_leftovers(self.directory.path)
        if self.is_locked and find_record(self.directory.row, RowRecord) is None:
            shutil.copyfile(study_file, self.directory.study)
            write_record(self.directory.row, row.describe())
        self.failed: str = ""
        """Why the row ended without a winner; empty if it did not."""
        self._open: dict[int, Task] = {}
        self._opened: Tuning | None = None
        self._parallel = parallel
        self._tuned = self._read_tuned()
        if self._tuned is None and held is not None:
            raise held
        if self._tuned is None:
            self._open_tuning()
        self._has_begun_tuning_teacher = any(teacher.path.exists() for teacher in tuning_teachers(row))
        self._final = {} if self._tuned is None else final_tasks(self.row, self._tuned.winner.params)
        self._finished: set[int] = set(self._final)
        """Seeds whose final run is finished or failed."""
        self._failures = 0

    @property
    def tuning(self) -> Tuning:
        """The row's Optuna study; a row that is done opens it when first asked for."""
        return self._opened or self._open_tuning()

    @property
    def is_done(self) -> bool:
        """True if winner and lines showed at the launch that all trials and final runs are finished."""
        return self._tuned is not None

    def _open_tuning(self) -> Tuning:
        tuning = Tuning(self.row, self.lock, self._parallel)
        if self.is_locked and has_only_failures(tuning, self.directory):
            set_aside_failures(self.directory, self.row.title)
            tuning = Tuning(self.row, self.lock, self._parallel)
        self._opened, self._open = tuning, {}
        for trial in filter(self._is_open, tuning.trials()):
            self._begin(trial.number, tuning.complete(trial, self._stored_parameters))
        return tuning

    def _read_tuned(self) -> Tuned | None:
        """Return the row's winner if nothing of the row is left to do; its lines show that all results are right."""
        tuned = read_tuned(self.directory, self.finished.lines)
        if tuned is None or tuned.winner.trials < self.row.budget or tuned.winner.selection != self.row.selection:
            return None
        final = {seed: task.directory for seed, task in final_tasks(self.row, tuned.winner.params).items()}
        named = {seed: self.directory.path / "confirm" / name for seed, name in tuned.winner.confirm.items()}
        is_done = all(named.get(seed) == run.path and run in self.finished for seed, run in final.items())
        return tuned if is_done else None

    def _is_open(self, trial: FrozenTrial) -> bool:
        """True if a trial runs, or lost its result after it was reported: it runs again and is not reported again.

        Also true if it ran again while no controller noted the end of that attempt.
        """
        directory, had = self.directory.trial(trial.number), trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        if trial.state is TrialState.RUNNING:
            return True
        if directory in self.finished:
            return False
        if has_lost_result(directory, had=had) or is_unnoted(directory):
            return True
        if directory.result.exists():
            self.finished.miss(directory)
        return False

    def close(self) -> None:
        """Release the lock."""
        self.lock.release()
        self.is_locked = False

    @property
    def remaining(self) -> int:
        """Trials and final runs that are not finished yet, as far as is known now."""
        if self.failed or self._tuned is not None:
            return 0
        tuning = self.tuning.left + len(self._open)
        return tuning + self.row.seeds - len(self._finished)

    @property
    def is_finished(self) -> bool:
        """True if the row is locked and nothing is left to do or to write."""
        return self.is_locked and not self.remaining and self.finished.is_complete

    @property
    def _is_tuning(self) -> bool:
        if self._tuned is not None:
            return False
        return bool(self._open) or self.tuning.proposed < self.row.trials or bool(self.tuning.finalists_due())

    def _begin(self, number: int, parameters: dict[str, float]) -> Task:
        self._open[number] = tuning_task(self.row, number, parameters, self.tuning.finalist(number))
        return self._open[number]

    def teacher_seeds(self) -> list[int]:
        """Return the seeds of the teachers that the row still needs, tuning's first.

        Tuning's is included even after tuning if it was begun: if it is damaged, it is trained again.
        """
        if self.row.student.teacher is None or self.failed:
            return []
        tuning = [TUNING_SEED] if self._is_tuning or self._has_begun_tuning_teacher else []
        return tuning + [seed for seed in range(1, self.row.seeds + 1) if seed not in self._finished]

    def directories(self) -> list[TrialDir]:
        """Return all trial directories of the row, and its teachers'."""
        return [*self.directory.trials(), *self.directory.final_runs(), *teacher_directories(self.row)]

    def gpu_seconds(self) -> float:
        """Sum the GPU-seconds of the row's ended attempts, without its teachers', which other rows share."""
        listed = (attempt for line in self.finished.lines.values() for attempt in attempts_of(line))
        runs = [*self.directory.trials(), *self.directory.final_runs()]
        others = [run for run in runs if run not in self.finished]
        return sum(attempt.submitted.gpu_seconds or 0.0 for attempt in listed) + gpu_seconds_of(others)

    def wants_pruned(self, task: Task) -> bool:
        """True if the row's pruner stops a running trial now, by its progress; writes its stop file."""
        if self.row.pruner == "none" or task.kind != "tuning" or task.directory.stop.exists():
            return False
        curve = read_curve(task.directory, f"valid_{self.row.selection}")
        if not self.tuning.should_prune(int(task.directory.path.name), curve):
            return False
        write_text(task.directory.stop, f"{self.row.pruner} pruner, epoch {len(curve)}\n")
        return True

    def failed_trials(self) -> list[int]:
        """Return the numbers of tuning trials that failed (no retries left); diverged ones have a result."""
        if self._tuned is not None:
            return [n for n in self._tuned.failed if self.tuning.finalist(n) is None]
        return [n for n in self.tuning.failed() if not self.directory.trial(n).result.exists()]

    def failed_seeds(self) -> list[int]:
        """Return the seeds whose final run or its teacher failed (no retries left)."""
        return [seed for seed, task in self._final.items() if not task.directory.result.exists()]

    def retry_failed(self) -> int:
        """Enqueue the parameters of failed trials under new numbers. Return how many."""
        failed = self.failed_trials()
        if failed and not self.is_locked:
            raise UserError(f"row {self.row.title}: --retry failed: another controller holds the row; wait for it")
        for number in failed:
            self.tuning.retry(number)
        if failed and self._tuned is not None:
            self._tuned, self._final, self._finished = None, {}, set()
        return len(failed)

    def tasks(self, has_teacher: Callable[[Row, int], bool], *, sample: bool = True) -> Iterator[Task]:
        """Yield trials that are due and have their teacher; with `sample`, sample new ones as they are taken."""
        if self.failed:
            return
        if self._is_tuning and has_teacher(self.row, TUNING_SEED):
            yield from list(self._open.values())
            while sample and self.tuning.proposed < self.row.trials:
                yield self._begin(*self.tuning.sample(self._stored_parameters))
            for finalist in self.tuning.finalists_due() if sample else ():
                yield self._begin(*self.tuning.sample_finalist(finalist))
        if self._is_tuning:
            return
        if not self._final:
            self._choose_winner()
        for seed, task in self._final.items():
            if seed not in self._finished and has_teacher(self.row, seed):
                yield task

    def settle(self, task: Task) -> str:
        """Record the outcome of a finished or failed trial once. Return a line about it, "" if nothing is new."""
        result = usable_result(task.directory)
        if result is None and decide(task.directory, self.launch) is not State.FAILED:
            return ""
        if result is not None and identity(from_json(result.config, task.directory.result)) != identity(task.config):
            raise UserError(
                f"{task.directory.path}: its result is another configuration's (was the journal removed or replaced?); "
                f"move the directory away, and its trial runs again"
            )
        reason = "" if result is not None else why_failed(read_attempts(task.directory), self.launch)
        clean_up(task.directory)
        if result is not None:
            self.finished.miss(task.directory)
        has_failed = bool(self.failed)
        final = task.kind == "final"
        measured = self._settle_final(task, result) if final else self._settle_tuning(task, result, reason)
        if measured is None:
            return ""
        if result is None:
            return "" if has_failed else f"failed (no retries left): {reason}"
        return f"{result.status}, {measured}" if measured else f"{result.status}: {result.reason}"

    def _settle_tuning(self, task: Task, result: Result | None, reason: str) -> str | None:
        """Report a trial to Optuna. Return its value in words, "" if it has none, None if it was reported before."""
        number = int(task.directory.path.name)
        if number not in self._open:
            return None
        metrics = result.metrics.get("valid", {}) if result is not None else {}
        value = None if result is None or result.status is Status.DIVERGED else metrics.get(self.row.selection)
        self.tuning.report(
            number,
            value,
            pruned=result is not None and result.status is Status.PRUNED,
            curve=read_curve(task.directory, f"valid_{self.row.selection}"),
            attributes={f"valid_{name}": metrics[name] for name in REPORTED if name in metrics},
        )
        del self._open[number]
        best = self.tuning.winner
        if result is None:
            self._failures += 1
            if last_attempt(task.directory).end == Failure.BUG and best is None:
                self.failed = f"see {task.label}: fix the code and run the same command again"
            elif self._failures >= HOPELESS and best is None:
                self.failed = f"{self._failures} trials failed (no retries left) and none completed, the last: {reason}"
        if value is None:
            return ""
        star = " (best so far)" if best is not None and best.number == number else ""
        return f"valid {self.row.selection} {value:.4f}{star}"

    def _settle_final(self, task: Task, result: Result | None) -> str | None:
        """Return a final run's test accuracy in words, "" if it has none, None if it was settled before."""
        seed = seed_within(task.config.seed)
        if seed in self._finished:
            return None
        self._finished.add(seed)
        if result is None or result.status is not Status.COMPLETE:
            return ""
        return f"test accuracy {result.metrics['test']['accuracy']:.4f}"

    def miss_teacher(self, seed: int, reason: str) -> None:
        """Continue without the teacher of a seed: without tuning's the row fails, without another that seed."""
        if seed != TUNING_SEED:
            self._finished.add(seed)
        elif self._is_tuning:
            self.failed = f"its teacher {reason}"
        else:
            self._has_begun_tuning_teacher = False

    def _stored_parameters(self, number: int) -> dict[str, float] | None:
        return stored_parameters(self.row, number)

    def _choose_winner(self) -> None:
        """Once all trials are reported, record the winner and its final runs, and mark those of another winner."""
        chosen = self.tuning.chosen()
        if chosen is None:
            self.failed = f"none of {self.tuning.sampled} trials completed; see {self.directory.path}/trials/*/log"
            return
        self._final = final_tasks(self.row, chosen[0].params)
        write_winner(self.directory, self.tuning, self.row.selection, self._final, self.lock)


def spent_before(rows: Iterable[RowWork]) -> float:
    """Sum the GPU-seconds of earlier launches: of the rows, and of their teachers, each once."""
    rows = list(rows)
    teachers = dict.fromkeys(teacher for work in rows for teacher in teacher_directories(work.row))
    return sum(work.gpu_seconds() for work in rows) + gpu_seconds_of(teachers)
