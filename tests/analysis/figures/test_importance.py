"""Importance names what decided, and its noise floor is what chance alone reaches."""

import warnings

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from analysis.figures.importance import importance_data
from analysis.figures.tuning import SearchRange, Tuning
from mmkd.errors import UserError

SPACE = {
    "learning_rate": SearchRange(low=1e-4, high=1e-2, log=True),
    "beta": SearchRange(low=0.0, high=1.0),
    "temperature": SearchRange(low=0.1, high=10.0, log=True),
}


@pytest.fixture(autouse=True)
def few_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.figures.importance.SHUFFLES", 30)


def tuning(trials: int, seed: int, *, noise_alone: bool = False, lower_is_better: bool = True) -> Tuning:
    """Trials at random points, whose values follow beta under a little noise, or noise alone."""
    rng = np.random.default_rng(seed)
    points = pd.DataFrame(
        {
            name: np.exp(rng.uniform(np.log(r.low), np.log(r.high), trials)) if r.log else rng.uniform(0, 1, trials)
            for name, r in SPACE.items()
        }
    )
    signal = 0.0 if noise_alone else (points["beta"] - 0.3).abs()
    value = (1 if lower_is_better else -1) * (signal + 0.05 * rng.normal(size=trials))
    lines = points.assign(value=value, seconds=1.0)
    return Tuning("A row", "valid_loss", lower_is_better, "random", SPACE, lines, 0, False)


@pytest.mark.parametrize("lower_is_better", [True, False])
def test_what_decides_comes_first_and_leaves_the_noise(lower_is_better: bool) -> None:
    data = importance_data(tuning(40, 0, lower_is_better=lower_is_better))
    assert data.names[0] == "beta"
    assert data.shares[0] > data.floor[0]
    assert (data.shares[1:] < data.floor[1:]).all()
    assert data.shares.sum() == pytest.approx(1)
    assert (data.trials, data.sampler) == (40, "random")
    assert "PED-ANOVA, best 25%" in data.evaluator


def test_the_shares_are_optunas_own() -> None:
    made = tuning(30, 1)
    study = optuna.create_study()
    distributions = {name: FloatDistribution(r.low, r.high, log=r.log) for name, r in SPACE.items()}
    for _, line in made.trials.iterrows():
        params = {name: float(line[name]) for name in SPACE}
        study.add_trial(create_trial(params=params, distributions=dict(distributions), value=float(line["value"])))
    expected = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25))
    data = importance_data(made)
    assert dict(zip(data.names, data.shares, strict=True)) == pytest.approx(expected)


def test_noise_alone_seldom_leaves_the_floor() -> None:
    found = [importance_data(tuning(20, seed, noise_alone=True)) for seed in range(16)]
    # 48 comparisons at 7 % (a floor of 30 shuffles): 3.5 are expected, the median in place of the floor would give 24.
    assert sum(int((data.shares > data.floor).sum()) for data in found) <= 10


def test_equal_trials_give_equal_floors_and_nothing_is_said_or_changed(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = importance_data(tuning(12, 2)), importance_data(tuning(12, 2))
    assert (first.floor == second.floor).all()
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


def test_trials_without_a_value_do_not_count() -> None:
    made = tuning(9, 3)
    made.trials.loc[4, "value"] = np.nan
    assert importance_data(made).trials == 8
    made.trials.loc[5, "value"] = np.nan
    with pytest.raises(UserError, match="A row: 7 trials have a value, importance needs 8 or more"):
        importance_data(made)


def test_one_hyper_parameter_has_no_shares() -> None:
    made = tuning(12, 4)
    alone = Tuning("A row", "valid_loss", True, "random", {"beta": SPACE["beta"]}, made.trials, 0, False)
    with pytest.raises(UserError, match="A row: it tunes one hyperparameter or none"):
        importance_data(alone)
