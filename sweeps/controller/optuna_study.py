"""Sample and report one row's trials with Optuna, in a journal that survives a kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from mmkd.config import derived_seed
from mmkd.lock import FileLock
from mmkd.metrics import best_trial, lower_is_better
from sweeps.controller.finalists import ATTRIBUTE, Finalist, finalist_of, runs_due, winner_of
from sweeps.controller.journal import Journal, complement, damage_named, heal_journal
from sweeps.rows import Row

optuna.logging.set_verbosity(optuna.logging.WARNING)

GP_TRIALS = 500
"""The Gaussian process samples so many first trials of a row, TPE the later ones.

GP's cost grows with the cube of the trials, TPE's is proportional to them (measured by benchmarks/asking.py).
"""

PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "none": NopPruner,
    "median": lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=5),
    "halving": SuccessiveHalvingPruner,
}


class _OurLock:
    """Check the row's lock at each write of the journal: only its holder writes. Optuna's BaseJournalFileLock."""

    def __init__(self, lock: FileLock) -> None:
        self.lock = lock

    def acquire(self) -> bool:
        self.lock.check()
        return True

    def release(self) -> None:
        """Do nothing: the controller holds the lock while it works on the row."""


class _Fresh(BaseSampler):
    """A mixin for samplers: replace a proposal that repeats an earlier trial, and so its numbers, by a random one."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        proposed = super().sample_relative(study, trial, search_space)  # type: ignore[safe-super]
        if proposed and any(proposed == t.params for t in study.get_trials(deepcopy=False)):
            return _draw(study, RandomSampler(seed=trial.number), search_space)
        return proposed


class _FreshGP(_Fresh, GPSampler):
    """GP without repetitions, on one core: its matrices are small, and the login node is shared."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        import torch  # takes seconds, and the other samplers do not need it

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return super().sample_relative(study, trial, search_space)
        finally:
            torch.set_num_threads(threads)


class _FreshTPE(_Fresh, TPESampler):
    """TPE without repetitions."""


Found = Callable[[int], dict[str, float] | None]
"""Return the parameters of a trial from its directory if the journal has lost them."""


class Tuning:
    """The Optuna study of a row. We are its only writer, so that counts and winner need not be read again.

    Args:
        row: the row.
        lock: the row's lock, held.
        parallel: number of slots; selects the sampler for `auto`.
    """

    def __init__(self, row: Row, lock: FileLock, parallel: int) -> None:
        self.row, self.parallel = row, parallel
        heal_journal(row.directory.journal)
        self.journal = Journal(row.directory.journal, _OurLock(lock))
        with damage_named(self.journal.path, "put a backup in its place, or remove it: trials are sampled again"):
            name, storage = row.directory.path.name, JournalStorage(self.journal)
            if name not in optuna.get_all_study_names(storage):  # create_study adds a line even where it is there
                optuna.create_study(
                    study_name=name,
                    storage=storage,
                    direction="minimize" if lower_is_better(row.selection) else "maximize",
                )
            self.study = optuna.load_study(study_name=name, storage=storage, pruner=PRUNERS[row.pruner]())
        self.distributions: dict[str, BaseDistribution] = {
            name: FloatDistribution(r.low, r.high, log=r.log) for name, r in row.ranges.items()
        }
        trials = self.study.get_trials(deepcopy=False)
        self._waiting = sum(t.state is TrialState.WAITING for t in trials)
        self.numbers = len(trials) - self._waiting
        """Numbers given to trials so far, retried ones included."""
        self._replaced = {int(t.user_attrs["retry_of"]) for t in trials if "retry_of" in t.user_attrs}
        self._finalists = {t.number: finalist for t in trials if (finalist := finalist_of(t)) is not None}
        self.winner = self._best_of([t for t in trials if t.number not in self._finalists])
        """The best complete trial, the earliest among equals; None if none completed. It is not a finalist's run."""

    def trials(self) -> list[FrozenTrial]:
        """Return the sampled trials by number, without those that are only enqueued."""
        return [t for t in self.study.get_trials(deepcopy=False) if t.state is not TrialState.WAITING]

    def sample(self, found: Found = lambda number: None) -> tuple[int, dict[str, float]]:
        """Return the next trial's number and parameters: the documented default first, then the sampler's.

        With the random sampler each parameter depends only on its range, its name and the number, so that rows which
        share a range are tried at the same values of it.
        """
        number = self.numbers
        known = None if self._waiting else found(number)
        if known is None and (self._waiting or (number > 0 and self.row.sampler != "random")):
            self.study.sampler = self._sampler(number)
            parameters = self.study.ask(self.distributions).params
            self._waiting = max(self._waiting - 1, 0)
        else:
            # Without a sampler, a trial is one line of the journal: a kill leaves all or nothing of it.
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
        self.numbers += 1
        return number, {name: float(parameters[name]) for name in self.distributions}

    @property
    def sampled(self) -> int:
        """Trials that count against the budget: a failed one and its retry are one. Includes runs of finalists."""
        return self.numbers - len(self._replaced)

    @property
    def proposed(self) -> int:
        """`sampled` without the runs of finalists."""
        return self.sampled - len(self._finalists)

    @property
    def left(self) -> int:
        """Trials that are not sampled yet; runs of finalists are counted as planned until it is known which."""
        proposals = max(self.row.trials - self.proposed, 0)
        if proposals or any(not t.state.is_finished() for t in self.trials()):
            return proposals + max(self.row.budget - self.row.trials - len(self._finalists), 0)
        return len(self.finalists_due())

    def finalist(self, number: int) -> Finalist | None:
        """Return which run of a finalist a trial is; None for one that the sampler proposed."""
        return self._finalists.get(number)

    def finalists_due(self) -> list[Finalist]:
        """Return the runs of finalists that are not sampled, once all proposed trials are reported."""
        trials, finalists = self.trials(), self.row.finalists
        if finalists is None or self.proposed < self.row.trials or self._waiting:
            return []
        if any(not t.state.is_finished() for t in trials if t.number not in self._finalists):
            return []
        return runs_due(trials, self.row.selection, finalists.best, finalists.seeds)

    def sample_finalist(self, finalist: Finalist) -> tuple[int, dict[str, float]]:
        """Return the number and the parameters of a finalist's run, which is one line of the journal."""
        parameters, number = self._trial(finalist.trial).params, self.numbers
        attributes = {"origin": "finalist", ATTRIBUTE: list(finalist)}
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=parameters,
                distributions=self.distributions,
                user_attrs=attributes,
            )
        )
        self._finalists[number] = finalist
        self.numbers += 1
        return number, {name: float(parameters[name]) for name in self.distributions}

    def chosen(self) -> tuple[FrozenTrial, float] | None:
        """Return the winner and its value: the best trial, or the finalist of best mean; None if none completed."""
        if self.row.finalists is None:
            return None if self.winner is None else (self.winner, float(self.winner.value or 0.0))
        return winner_of(self.trials(), self.row.selection, self.row.finalists.best, self.row.finalists.seeds)

    def failed(self) -> list[int]:
        """Return the proposed trials that were reported as failed and not retried."""
        gone = {*self._replaced, *self._finalists}
        return [t.number for t in self.trials() if t.state is TrialState.FAIL and t.number not in gone]

    def retry(self, number: int) -> None:
        """Sample the parameters of a failed trial again next, in its place."""
        failed = self.study.get_trials(deepcopy=False)[number]
        self.study.enqueue_trial(failed.params, user_attrs={"origin": "retry", "retry_of": number})
        self._waiting += 1
        self._replaced.add(number)

    def should_prune(self, number: int, curve: Sequence[float]) -> bool:
        """Report a running trial's selection metric by epoch. True if the pruner stops it."""
        trial = self._trial(number)
        if number in self._finalists or trial.state.is_finished() or len(curve) <= len(trial.intermediate_values):
            return False  # a reported trial that runs again because its result was lost runs to its end
        with self.journal.one_write():
            complement(self.study, trial, {}, by_epoch(curve))
        return self.study.pruner.prune(self.study, self._trial(number))

    def complete(self, trial: FrozenTrial, found: Found = lambda number: None) -> dict[str, float]:
        """Return the parameters of a sampled trial; if a kill cut sampling short, `found` or drawn ones complete it."""
        parameters = trial.params
        if set(self.distributions) - set(parameters):
            self.study.sampler = self._sampler(trial.number)
            if known := found(trial.number):
                self.study._storage.set_trial_system_attr(trial._trial_id, "fixed_params", known)
            resumed = optuna.trial.Trial(self.study, trial._trial_id)
            for name, r in self.row.ranges.items():
                resumed.suggest_float(name, r.low, r.high, log=r.log)
            parameters = resumed.params
        return {name: float(parameters[name]) for name in self.distributions}

    def report(
        self,
        number: int,
        value: float | None,
        *,
        pruned: bool = False,
        curve: Sequence[float] = (),
        attributes: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Report a trial's value, or None for a failed or diverged one. A second report changes nothing.

        Args:
            number: the trial's.
            value: its selection metric. Optuna takes the value of a pruned trial from its curve.
            pruned: True if the pruner ended it.
            curve: its selection metric by epoch, Optuna's intermediate values.
            attributes: further metrics, Optuna's user attributes.
        """
        trial = self._trial(number)
        if not trial.state.is_finished():
            with self.journal.one_write():
                complement(self.study, trial, attributes, by_epoch(curve))
        state = TrialState.FAIL if value is None else TrialState.PRUNED if pruned else TrialState.COMPLETE
        final = value if state is TrialState.COMPLETE else None
        reported = self.study.tell(number, final, state=state, skip_if_finished=True)
        if number not in self._finalists:
            self.winner = self._best_of([reported] if self.winner is None else [self.winner, reported])

    def _trial(self, number: int) -> FrozenTrial:
        storage = self.study._storage
        return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number))

    def _best_of(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        complete = {t.number: float(t.value) for t in trials if t.state is TrialState.COMPLETE and t.value is not None}
        number = best_trial(self.row.selection, complete)
        return next((trial for trial in trials if trial.number == number), None)

    def _random(self, number: int) -> dict[str, Any]:
        drawn: dict[str, Any] = {}
        for name, distribution in self.distributions.items():
            drawn |= _draw(
                self.study,
                RandomSampler(seed=derived_seed("sampler", self.row.replicate, number, name)),
                {name: distribution},
            )
        return drawn

    def _sampler(self, number: int) -> BaseSampler:
        seed = derived_seed("sampler", self.row.replicate, number)
        name = self.row.sampler
        # From 3 trials per slot, GP wins by 3 to 5 times, below TPE does (measured with 8 to 32 slots).
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


def by_epoch(curve: Sequence[float]) -> dict[int, float]:
    """A curve's values by epoch, from 1."""
    return dict(enumerate(curve, start=1))


def _draw(study: optuna.Study, sampler: RandomSampler, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Draw a point of the space; it depends only on the sampler's seed, not on other trials."""
    nothing = create_trial(state=TrialState.RUNNING)
    return {name: sampler.sample_independent(study, nothing, name, d) for name, d in space.items()}
