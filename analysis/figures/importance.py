"""Importance of hyperparameters, and the share of it that chance alone would show."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from matplotlib.axes import Axes
from optuna.distributions import FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from analysis.figures.style import LINE, ROW, drawing_on, plain, wrapped
from analysis.figures.tuning import Tuning, tuning_data
from analysis.loading.frames import Floats
from analysis.loading.runs import Runs
from analysis.loading.study_rows import collect
from mmkd.errors import UserError

TARGET = 0.25
"""PED-ANOVA asks what sets the best quarter of the trials apart."""
FEWEST = 8
"""Trials with a value: below, the best quarter is a single one."""
SHUFFLES, FLOOR = 200, 0.95


@dataclass(frozen=True)
class Importance:
    """Shares of importance, of each hyperparameter in the order of importance.

    Attributes:
        title: the row's.
        evaluator: what computed it, in words.
        sampler: what proposed the trials, as the study file names it.
        trials: how many have a value.
        names: (P,) hyperparameters.
        shares: (P,) they sum to 1.
        floor: (P,) the share that in 95 % of cases is not exceeded where values are dealt to trials at random.
    """

    title: str
    evaluator: str
    sampler: str
    trials: int
    names: tuple[str, ...]
    shares: Floats
    floor: Floats


def importance_data(tuning: Tuning) -> Importance:
    """PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023) on the trials that have a value.

    A sampler that looks where it was lucky puts trials there, which every importance measure takes for a property of
    the hyperparameter; under Adam, alpha and beta matter nearly by their ratio alone.

    Raises:
        UserError: fewer than two hyperparameters were tuned, or fewer than 8 trials have a value.
    """
    if len(tuning.space) < 2:
        raise UserError(f"{tuning.title}: it tunes one hyperparameter or none")
    complete = tuning.complete
    if len(complete) < FEWEST:
        raise UserError(f"{tuning.title}: {len(complete)} trials have a value, importance needs {FEWEST} or more")
    sign = 1.0 if tuning.lower_is_better else -1.0
    values: Floats = sign * complete["value"].to_numpy()
    study = _as_study(tuning, values)
    shares = _shares(study, list(tuning.space), values)
    rng = np.random.default_rng(0)
    chance = np.stack([_shares(study, list(tuning.space), rng.permutation(values)) for _ in range(SHUFFLES)])
    order = np.argsort(-shares, kind="stable")
    return Importance(
        tuning.title,
        f"PED-ANOVA, best {TARGET:.0%} of trials",
        tuning.sampler,
        len(complete),
        tuple(list(tuning.space)[place] for place in order),
        shares[order],
        np.quantile(chance, FLOOR, axis=0)[order],
    )


def _as_study(tuning: Tuning, values: Floats) -> optuna.Study:
    """The trials as Optuna's, minimised; numbered from 0."""
    distributions = {name: FloatDistribution(r.low, r.high, log=r.log) for name, r in tuning.space.items()}
    lines = tuning.complete[list(tuning.space)].to_dict("records")
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study that is created
    try:
        study = optuna.create_study()
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        [
            create_trial(params={str(k): v for k, v in line.items()}, distributions=dict(distributions), value=value)
            for line, value in zip(lines, values, strict=True)
        ]
    )
    return study


def _shares(study: optuna.Study, names: Sequence[str], values: Floats) -> Floats:
    """Importances of `names`, summing to 1, were `values` (n,) the trials' values; less is better."""

    def value(trial: FrozenTrial) -> float:
        return float(values[trial.number])

    with warnings.catch_warnings():
        # It warns that with a custom target less is better; it is.
        warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes")
        evaluator = PedAnovaImportanceEvaluator(target_quantile=TARGET)
        found = get_param_importances(study, evaluator=evaluator, params=list(names), target=value)
    return np.array([found[name] for name in names])


def importance(runs: Runs, study: str, row: str, ax: Axes | None = None) -> Axes:
    """Bars of importance, and behind each what chance alone stays below in 19 cases of 20.

    Raises:
        UserError: see `importance_data`.
    """
    data = importance_data(tuning_data(runs, collect(runs, study).row(row)))
    facts = f"{data.evaluator}; sampler {data.sampler}, {data.trials} trials"
    title = f"{wrapped(data.title, 2.4)}\n{wrapped(facts, 2.4)}"
    with drawing_on(ax, height=0.9 + 0.25 * len(data.names) + LINE * title.count("\n")) as ax:
        places = np.arange(len(data.names))
        ax.barh(places, data.floor, height=0.8, color="#CFCFCF", label="chance (95 % of it)")
        ax.barh(places, data.shares, height=0.4, color=ROW, label="importance")
        ax.set_yticks(places, [plain(name.replace("_", " ")) for name in data.names])
        ax.set_ylim(len(places) - 0.4, -0.6)
        ax.set_xlim(0, 1)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("share of importance")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, reverse=True)
        ax.set_title(title, pad=16)
    return ax
