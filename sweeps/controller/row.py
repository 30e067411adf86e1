"""One row at work: which of its trials are due, and what becomes of what they give."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from mmkd.attempts import read_attempts
from mmkd.config import Run, StudentConfig, digest, from_json, identity, to_json
from mmkd.errors import UserError
from mmkd.files import read_json, remove_leftovers, write_json, write_text
from mmkd.formatting import teacher_label
from mmkd.lock import FileLock, LockHeld
from mmkd.metrics_log import read_metrics
from mmkd.records import RowRecord, WinnerRecord, find_record, write_record
from mmkd.result_file import Result, Status, clean_up, has_lost_result, usable_result
from mmkd.rundir import Root, TrialDir
from mmkd.trial_state import State, why_failed
from sweeps.controller.optuna_study import Tuning
from sweeps.controller.retries import decide, is_unnoted
from sweeps.rows import TUNING_SEED, Row, teacher_directories
from sweeps.study_file import merge

HOPELESS = 3
"""A row stops when so many trials failed for good and none completed: the cause is not the parameters."""


@dataclass(frozen=True)
class Task:
    """A trial to run: `name` is unique in its root, `label` is for people, `kind` is tuning, confirm or teacher."""

    name: str
    label: str
    kind: str
    directory: TrialDir
    config: Run


def write_config(task: Task) -> None:
    """Make the task's directory and its configuration, once, but for the data's path: a data set may have moved."""
    there = read_json(task.directory.config)
    if there is None:
        task.directory.path.mkdir(parents=True, exist_ok=True)
        write_json(task.directory.config, to_json(task.config))
    elif there["data"]["path"] != task.config.data.path:
        write_json(task.directory.config, merge(there, {"data": {"path": task.config.data.path}}))


class RowWork:
    """A row that this controller works on: holds its lock, its Optuna study, and which of its trials are open.

    Args:
        row: what to do.
        root: where everything lies.
        parallel: how many trials run at once.
        study_file: copied beside the row when it begins.

    Raises:
        UserError: another controller works on this row.
    """

    def __init__(self, row: Row, root: Root, parallel: int, study_file: Path) -> None:
        self.row, self.root, self.launched = row, root, time.time()
        self.directory = row.directory
        self.directory.path.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.directory.lock)
        try:
            self.lock.acquire()
        except LockHeld as held:
            raise UserError(
                f"row {row.name}: another controller is at work: {held}; studies share equal rows: "
                "launch again when that one is done"
            ) from None
        remove_leftovers(self.directory.path)
        if find_record(self.directory.row, RowRecord) is None:
            shutil.copyfile(study_file, self.directory.study)
            write_record(self.directory.row, row.describe())
        self.tuning = Tuning(row, self.lock, parallel)
        if self._nothing_came_of_it():
            self._set_aside()
            self.tuning = Tuning(row, self.lock, parallel)
        self.failed: str = ""
        """Why the row has ended without a winner; empty while it has not."""
        self._open: dict[int, Task] = {}
        for trial in self._running_trials():
            self._open[trial.number] = self._tuning_task(trial.number, self.tuning.complete(trial, self._found))
        for trial in self._trials_without_result():
            self._open[trial.number] = self._tuning_task(trial.number, trial.params)
        tuned_by = teacher_directories(row, root)[:1]
        self._has_begun_tuning_teacher = any(teacher.path.exists() for teacher in tuned_by)
        self._confirming: dict[int, Task] = {}
        self._settled: set[int] = set()
        self._given_up = 0

    def _nothing_came_of_it(self) -> bool:
        """Whether all trials were told as failed and none left a result: an error of the code, which may be mended."""
        states = {t.state for t in self.tuning.trials()}
        return states == {TrialState.FAIL} and not any(t.result.exists() for t in self.directory.trials())

    def _set_aside(self) -> None:
        """Keep the journal and the trials of a row in which nothing completed, so that it begins again."""
        number = 1 + len(list(self.directory.path.glob("failed-*")))
        aside = self.directory.path / f"failed-{number}"
        aside.mkdir()
        for path in (self.directory.path / "trials", self.directory.journal):
            if path.exists():
                os.replace(path, aside / path.name)
        print(f"row {self.row.name}: nothing completed when it last ran; it begins again ({aside} keeps what failed)")

    def close(self) -> None:
        """Give the lock back."""
        self.lock.release()

    @property
    def asked(self) -> int:
        """Trials asked so far, failed ones too."""
        return self.tuning.asked()

    @property
    def remaining(self) -> int:
        """Trials and confirming runs that are not finished yet, as far as is known now."""
        if self.failed:
            return 0
        tuning = max(self.row.trials - self.asked, 0) + len(self._open)
        return tuning + self.row.seeds - len(self._settled)

    @property
    def _is_tuning(self) -> bool:
        return bool(self._open) or self.asked < self.row.trials

    def teacher_seeds(self) -> list[int]:
        """Seeds of the teachers that the row still needs, tuning's first.

        That one also later, if it was begun: one that was damaged since is trained again.
        """
        if self.row.teacher is None or self.failed:
            return []
        tuning = [TUNING_SEED] if self._is_tuning or self._has_begun_tuning_teacher else []
        return tuning + [seed for seed in range(1, self.row.seeds + 1) if seed not in self._settled]

    def directories(self) -> list[TrialDir]:
        """All trial directories of the row, and its teachers'."""
        return [*self.directory.trials(), *self.directory.final_runs(), *teacher_directories(self.row, self.root)]

    def wants_pruned(self, task: Task) -> bool:
        """Whether the row's pruner gives up on a running trial now, by its progress; its stop file then says so."""
        if self.row.pruner == "none" or task.kind != "tuning" or task.directory.stop.exists():
            return False
        curve = [float(line[f"valid_{self.row.selection}"]) for line in read_metrics(task.directory)]
        if not self.tuning.should_prune(int(task.directory.path.name), curve):
            return False
        write_text(task.directory.stop, f"{self.row.pruner} pruner, epoch {len(curve)}\n")
        return True

    def failed_trials(self) -> list[int]:
        """Numbers of tuning trials that failed for good and have not been tried again; one that diverged has not."""
        return [n for n in self.tuning.failed() if not self.directory.trial(n).result.exists()]

    def failed_seeds(self) -> list[int]:
        """Seeds of the winner whose confirming run failed for good, or whose teacher did."""
        return [seed for seed, task in self._confirming.items() if not task.directory.result.exists()]

    def retry_failed(self) -> int:
        """Have trials that failed for good tried again under new numbers, with their parameters; how many."""
        failed = self.failed_trials()
        for number in failed:
            self.tuning.ask_again(number)
        return len(failed)

    def tasks(self, has_teacher: Callable[[Row, int], bool], *, ask: bool = True) -> Iterator[Task]:
        """What is due and has the teacher that it needs; a new trial is asked only when somebody takes it, if `ask`."""
        if self.failed:
            return
        if (self._open or self.asked < self.row.trials) and has_teacher(self.row, TUNING_SEED):
            yield from list(self._open.values())
            while ask and self.asked < self.row.trials:
                number, parameters = self.tuning.ask(self._found)
                self._open[number] = self._tuning_task(number, parameters)
                yield self._open[number]
        if self._open or self.asked < self.row.trials:
            return
        if not self._confirming:
            self._choose_winner()
        for seed, task in self._confirming.items():
            if seed not in self._settled and has_teacher(self.row, seed):
                yield task

    def settle(self, task: Task) -> str:
        """Take over what a finished or given-up trial gave; a line that says it, "" if there is nothing to take.

        Exactly once: a trial is open until it is told, and Optuna refuses a second telling.
        """
        result = usable_result(task.directory)
        if result is None and decide(task.directory, self.launched) is not State.FAILED:
            return ""
        reason = "" if result is not None else why_failed(read_attempts(task.directory), self.launched)
        if result is not None and identity(from_json(result.config, task.directory.result)) != identity(task.config):
            raise UserError(
                f"{task.directory.path}: its result is another configuration's (was the journal removed or replaced?); "
                f"move the folder away, and its trial runs again"
            )
        clean_up(task.directory)
        if task.kind == "confirm":
            return self._settle_confirm(task, result, reason)
        number = int(task.directory.path.name)
        if number not in self._open:
            return ""
        value = None
        if result is not None and result.status is not Status.DIVERGED:
            value = result.metrics.get("valid", {}).get(self.row.selection)
        self.tuning.tell(number, value, pruned=result is not None and result.status is Status.PRUNED)
        del self._open[number]
        if result is None:
            self._give_up(reason)
            return f"failed for good: {reason}"
        if value is None:
            return f"{result.status}: {result.reason}"
        best = self.tuning.winner()
        star = " (best so far)" if best is not None and best.number == number else ""
        return f"{result.status}, valid {self.row.selection} {value:.4f}{star}"

    def miss_teacher(self, seed: int, reason: str) -> None:
        """The teacher of a seed cannot be had: without tuning's the row ends, without another that seed is missing."""
        if seed != TUNING_SEED:
            self._settled.add(seed)
        elif self._is_tuning:
            self.failed = f"its teacher {reason}"
        else:
            self._has_begun_tuning_teacher = False

    def _running_trials(self) -> Iterator[FrozenTrial]:
        return (t for t in self.tuning.trials() if t.state is TrialState.RUNNING)

    def _found(self, number: int) -> dict[str, float] | None:
        """The parameters of a trial that has a directory already: a journal that lost its end asks it again."""
        place = self.directory.trial(number)
        facts = read_json(place.config)
        config = None if facts is None else from_json(facts, place.config)
        if not isinstance(config, StudentConfig):
            return None
        parameters = self.row.parameters_of(config)
        return parameters if identity(self.row.config(parameters, TUNING_SEED)) == identity(config) else None

    def _trials_without_result(self) -> Iterator[FrozenTrial]:
        """Trials that were told, and whose result is gone or damaged now: they run again, and are not told again.

        Also those that ran again while no controller saw it: the end of that attempt is to be noted.
        """
        for trial in self.tuning.trials():
            had, place = trial.state in (TrialState.COMPLETE, TrialState.PRUNED), self.directory.trial(trial.number)
            if trial.state.is_finished() and (has_lost_result(place, had=had) or is_unnoted(place)):
                yield trial

    def _tuning_task(self, number: int, parameters: Mapping[str, float]) -> Task:
        config = self.row.config(parameters, TUNING_SEED)
        name, label = f"{self.directory.path.name}.t{number}", f"{self.row.name} trial {number}"
        return Task(name, label, "tuning", self.directory.trial(number), config)

    def _settle_confirm(self, task: Task, result: Result | None, reason: str) -> str:
        assert isinstance(task.config, StudentConfig)
        if task.config.seed in self._settled:
            return ""
        self._settled.add(task.config.seed)
        if result is None:
            return f"failed for good: {reason}"
        if result.status is not Status.COMPLETE:
            return f"{result.status}: {result.reason}"
        return f"complete, test accuracy {result.metrics['test']['accuracy']:.4f}"

    def _give_up(self, reason: str) -> None:
        self._given_up += 1
        if self._given_up >= HOPELESS and self.tuning.winner() is None:
            self.failed = f"{self._given_up} trials failed for good and none completed, the last: {reason}"

    def _choose_winner(self) -> None:
        """Once all trials are told: who won, and the confirming runs that count; those of another winner are marked."""
        winner = self.tuning.winner()
        if winner is None:
            self.failed = f"none of {self.asked} trials completed; see {self.directory.path}/trials/*/log"
            return
        parameters = {name: float(value) for name, value in winner.params.items()}
        mark = digest(parameters)
        self._confirming = {seed: self._confirm_task(seed, parameters, mark) for seed in range(1, self.row.seeds + 1)}
        record = WinnerRecord(
            trial=winner.number,
            value=float(winner.value or 0.0),
            params=parameters,
            trials=self.asked,
            numbers=self.tuning.numbers(),
            selection=self.row.selection,
            seeds=tuple(self._confirming),
            confirm={seed: task.directory.path.name for seed, task in self._confirming.items()},
        )
        if find_record(self.directory.winner, WinnerRecord) != record:
            self.lock.check()
            write_record(self.directory.winner, record)
        for other in self.directory.final_runs():
            ours = other.path.name.endswith(f"-{mark[:8]}")
            if ours:
                other.superseded.unlink(missing_ok=True)
            elif not other.superseded.exists():
                write_text(other.superseded, f"trial {winner.number} is the row's winner now\n")

    def _confirm_task(self, seed: int, parameters: Mapping[str, float], mark: str) -> Task:
        directory = self.directory.final_run(seed, mark)
        name = f"{self.directory.path.name}.s{directory.path.name}"
        return Task(name, f"{self.row.name} seed {seed}", "confirm", directory, self.row.config(parameters, seed))


def teacher_task(root: Root, row: Row, seed: int) -> Task:
    """The teacher that `row` needs for `seed`."""
    config = row.teacher_config(seed)
    assert config is not None
    directory, label = root.teacher(identity(config)), f"{teacher_label(config.branch)} seed {seed}"
    return Task(f"teacher-{directory.path.name[:8]}.s{seed}", label, "teacher", directory, config)
