"""One row's Optuna study: asked and told by the controller alone, in a journal that survives a kill."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from mmkd.config import digest
from mmkd.errors import UserError
from mmkd.lock import FileLock
from mmkd.metrics import best_trial, lower_is_better
from sweeps.rows import Row

optuna.logging.set_verbosity(optuna.logging.WARNING)

GP_TRIALS = 500
"""The Gaussian process proposes a row's first so many trials, TPE the later ones, which knows all trials too.

Its cost grows with the cube of the trials (benchmarks/asking.py measures it); TPE's is proportional to them.
"""

PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "none": NopPruner,
    "median": lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=5),
    "halving": SuccessiveHalvingPruner,
}


class _OurLock:
    """The row's lock, checked at each write of the journal: we are its only writer, or must not write at all.

    It has what Optuna asks of a BaseJournalFileLock, a name that Optuna keeps private.
    """

    def __init__(self, lock: FileLock) -> None:
        self.lock = lock

    def acquire(self) -> bool:
        self.lock.check()
        return True

    def release(self) -> None:
        """Nothing: the lock is held for as long as the controller works on the row."""


class _Fresh(BaseSampler):
    """Mixed into a sampler: a proposal that repeats an earlier trial is drawn at random instead.

    The same configuration gives the same numbers, so a repetition (mostly of a corner of the space) teaches nothing.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        proposed = super().sample_relative(study, trial, search_space)  # type: ignore[safe-super]
        if proposed and any(proposed == t.params for t in study.get_trials(deepcopy=False)):
            return _draw(study, RandomSampler(seed=trial.number), search_space)
        return proposed


class _FreshGP(_Fresh, GPSampler):
    """GP without repetitions, on one core: its matrices are small, and the login node is not ours alone."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        import torch  # late, as Optuna itself does: it takes seconds, and the other samplers do without

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return super().sample_relative(study, trial, search_space)
        finally:
            torch.set_num_threads(threads)


class _FreshTPE(_Fresh, TPESampler):
    """TPE without repetitions."""


Found = Callable[[int], dict[str, float] | None]
"""The parameters of a number that was asked already, by its directory, where the journal has lost them."""


def nothing_found(number: int) -> None:
    """No trial has a directory that the journal does not know."""


class Tuning:
    """The Optuna study of a row.

    We are its only writer, so what is asked for in every round (how many trials, which is best) is kept, and not
    gathered from all trials each time.

    Args:
        row: what is tuned.
        lock: the row's lock, held.
        parallel: how many trials run at once, which decides what `auto` means.
    """

    def __init__(self, row: Row, lock: FileLock, parallel: int) -> None:
        self.row, self.parallel = row, parallel
        journal = row.directory.journal
        heal_journal(journal)
        try:
            self.study = optuna.create_study(
                study_name=row.directory.path.name,
                storage=JournalStorage(
                    JournalFileBackend(str(journal), lock_obj=_OurLock(lock))  # type: ignore[arg-type]
                ),
                direction="minimize" if lower_is_better(row.selection) else "maximize",
                load_if_exists=True,
                pruner=PRUNERS[row.pruner](),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{journal}: damaged ({error}); put a backup in its place, or remove it: trials are asked anew"
            ) from None
        self.distributions: dict[str, BaseDistribution] = {
            name: FloatDistribution(r.low, r.high, log=r.log) for name, r in row.ranges.items()
        }
        trials = self.study.get_trials(deepcopy=False)
        self._waiting = sum(t.state is TrialState.WAITING for t in trials)
        self._number = len(trials) - self._waiting
        self._replaced = {int(t.user_attrs["retry_of"]) for t in trials if "retry_of" in t.user_attrs}
        self._best = self._best_of(trials)

    def trials(self) -> list[FrozenTrial]:
        """All that were asked, by number; those that are only enqueued are not."""
        return [t for t in self.study.get_trials(deepcopy=False) if t.state is not TrialState.WAITING]

    def ask(self, found: Found = nothing_found) -> tuple[int, dict[str, float]]:
        """The next trial's number and parameters: the documented default first, then the sampler's.

        With the random sampler the row and the number alone decide the parameters.
        """
        number = self._number
        known = None if self._waiting else found(number)
        if known is None and (self._waiting or (number > 0 and self.row.sampler != "random")):
            self.study.sampler = self._sampler(number)
            parameters = self.study.ask(self.distributions).params
            self._waiting = max(self._waiting - 1, 0)
        else:
            # What no sampler proposes is a single line of the journal, which a kill leaves whole or not at all.
            parameters = known or (self._random(number) if number else self.row.default())
            origin = "default" if not number else "found" if known else "random"
            self.study.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params=parameters,
                    distributions=self.distributions,
                    user_attrs={"origin": origin},
                )
            )
        self._number += 1
        return number, {name: float(parameters[name]) for name in self.distributions}

    def numbers(self) -> int:
        """All trials asked so far have numbers below it, also those that were tried again."""
        return self._number

    def asked(self) -> int:
        """Trials that count against the budget: all that were asked, but those that were tried again."""
        return self._number - len(self._replaced)

    def failed(self) -> list[int]:
        """Trials told as failed that have not been tried again."""
        return [t.number for t in self.trials() if t.state is TrialState.FAIL and t.number not in self._replaced]

    def ask_again(self, number: int) -> None:
        """Have the next trial be a failed one's parameters, in its place."""
        failed = self.study.get_trials(deepcopy=False)[number]
        self.study.enqueue_trial(failed.params, user_attrs={"origin": "retry", "retry_of": number})
        self._waiting += 1
        self._replaced.add(number)

    def should_prune(self, number: int, curve: Sequence[float]) -> bool:
        """Report a running trial's curve of the selection metric, by epoch, and ask the pruner about it."""
        frozen = self.study.get_trials(deepcopy=False)[number]
        if frozen.state.is_finished() or len(curve) <= len(frozen.intermediate_values):
            return False  # one that is told and runs again, for its result was lost, runs to its end
        trial = optuna.trial.Trial(self.study, frozen._trial_id)
        for epoch in range(len(frozen.intermediate_values), len(curve)):
            trial.report(curve[epoch], epoch + 1)
        return trial.should_prune()

    def complete(self, trial: FrozenTrial, found: Found = nothing_found) -> dict[str, float]:
        """The parameters of an asked trial; where a kill cut the asking short, missing ones are `found` or drawn."""
        if set(self.distributions) - set(trial.params):
            self.study.sampler = self._sampler(trial.number)
            if known := found(trial.number):
                self.study._storage.set_trial_system_attr(trial._trial_id, "fixed_params", known)
            resumed = optuna.trial.Trial(self.study, trial._trial_id)
            for name, r in self.row.ranges.items():
                resumed.suggest_float(name, r.low, r.high, log=r.log)
            return {name: float(resumed.params[name]) for name in self.distributions}
        return {name: float(trial.params[name]) for name in self.distributions}

    def tell(self, number: int, value: float | None, *, pruned: bool = False) -> None:
        """Tell a trial's value, or None for a failed or diverged one. A second telling changes nothing.

        A pruned trial's value is the last that was reported for it (`should_prune`): Optuna takes no other.
        """
        state = TrialState.FAIL if value is None else TrialState.PRUNED if pruned else TrialState.COMPLETE
        told = self.study.tell(
            number, value if state is TrialState.COMPLETE else None, state=state, skip_if_finished=True
        )
        self._best = self._best_of([told] if self._best is None else [self._best, told])

    def winner(self) -> FrozenTrial | None:
        """The best complete trial, the earliest among equals; None if none completed."""
        return self._best

    def _best_of(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        complete = {t.number: float(t.value) for t in trials if t.state is TrialState.COMPLETE and t.value is not None}
        number = best_trial(self.row.selection, complete)
        return next((trial for trial in trials if trial.number == number), None)

    def _random(self, number: int) -> dict[str, Any]:
        return _draw(self.study, RandomSampler(seed=self._seed(number)), self.distributions)

    def _seed(self, number: int) -> int:
        return int(digest([self.row.digest, number])[:8], 16)

    def _sampler(self, number: int) -> BaseSampler:
        seed = self._seed(number)
        name = self.row.sampler
        # From 3 trials a slot on the Gaussian process wins by 3 to 5 times, below TPE does (measured, 8 to 32 slots).
        if name == "auto":
            name = "gp" if self.row.trials >= 3 * self.parallel else "tpe"
        if name == "gp" and number >= GP_TRIALS:
            name = "tpe"
        startup = max(2, min(10, self.row.trials // 3))
        if name == "gp":
            return _FreshGP(seed=seed, n_startup_trials=startup)
        if name == "tpe":
            return _FreshTPE(seed=seed, n_startup_trials=startup)
        if name == "cmaes" and len(self.distributions) > 1:
            return CmaEsSampler(seed=seed, n_startup_trials=1)
        return RandomSampler(seed=seed)


def _draw(study: optuna.Study, sampler: RandomSampler, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """A point of the space; the sampler's seed alone decides, it looks at no trial."""
    nothing = create_trial(state=TrialState.RUNNING)
    return {name: sampler.sample_independent(study, nothing, name, d) for name, d in space.items()}


def heal_journal(journal: Path) -> None:
    """Cut a last line that a kill tore: one more append after it would spoil every later reading.

    Only the holder of the row's lock may call this.
    """
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with journal.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
