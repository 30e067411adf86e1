"""What figures show is what the runs say, checked by plain loops."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_root import CLASSES, LABELS, FigureRoot, build, tuned

from analysis import load
from analysis.figures import (
    best_so_far_data,
    confusion_data,
    forest_data,
    learning_curve_data,
    parallel_coordinates_data,
    tuning_data,
)
from analysis.figures.parallel import Scale
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect
from analysis.stats.scores import score_rows
from mmkd.errors import UserError
from mmkd.result_file import read_result
from mmkd.rundir import TrialDir


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("figures")
    build(root)
    return load(root, cache=False)


def row_of(runs: Runs, name: str) -> RowRuns:
    return collect(runs, "demo").row(name)


def test_a_learning_curve_is_the_mean_and_sd_of_the_runs_that_completed(runs: Runs) -> None:
    curve = learning_curve_data(runs, row_of(runs, "crd"), "valid_loss")
    stored = {}
    for path in (runs.root / "rows" / "crd-00000000" / "confirm").iterdir():
        stored[int(path.name.split("-")[0])] = read_result(TrialDir(path).result).curves["valid_loss"]
    assert {seed: list(values) for seed, values in curve.seeds.items()} == stored
    assert len(stored[2]) == 2  # it diverged, and is drawn as far as it came
    assert curve.completed == (1, 3)
    for epoch in range(4):
        values = [stored[1][epoch], stored[3][epoch]]
        middle = sum(values) / 2
        assert curve.mean[epoch] == pytest.approx(middle)
        assert curve.spread[epoch] == pytest.approx(sum((v - middle) ** 2 for v in values) ** 0.5)
    assert curve.best == {seed: stored[seed].index(min(stored[seed])) + 1 for seed in (1, 3)}
    assert curve.count == "2 of 3 seeds"


def test_an_unknown_metric_is_refused_with_the_known_ones(runs: Runs) -> None:
    with pytest.raises(UserError, match=r"valid_los'; did you mean valid_loss.*valid_accuracy"):
        learning_curve_data(runs, row_of(runs, "crd"), "valid_los")


def test_the_best_so_far_counts_failed_trials_as_spent(runs: Runs) -> None:
    tuning = tuning_data(runs, row_of(runs, "none"))
    values = list(tuning.trials["value"])
    assert np.isnan(values[3])
    by_trials, by_hours = best_so_far_data(tuning, "trials"), best_so_far_data(tuning, "hours")
    spent = 0.0
    for number, value in enumerate(values):
        until = [v for v in values[: number + 1] if v == v]
        spent += 36.0 * (number + 1)
        assert by_trials.best[number] == min(until)
        assert by_trials.cost[number] == number + 1
        assert by_hours.cost[number] == pytest.approx(spent / 3600)
        assert value != value or by_trials.value[number] == value
    assert tuning.winner == int(np.nanargmin(values))
    assert (by_hours.unknown, tuning.on_gpus, tuning.sampler) == (0, False, "tpe")


def test_more_is_better_for_accuracy(tmp_path: Path) -> None:
    root = FigureRoot(tmp_path)
    row = root.begin("acc", "A row", selection="accuracy")
    tuned(TrialDir(row / "trials" / "0"), 1e-3, 0.5, 1.0, 1.0)
    tuning = tuning_data(load(tmp_path, cache=False), row_of_study(root))
    assert (tuning.metric, tuning.lower_is_better) == ("valid_accuracy", False)
    for number, value in ((1, 0.75), (2, 0.25)):
        tuning.trials.loc[number] = pd.Series({**tuning.trials.loc[0], "value": value})
    assert list(best_so_far_data(tuning, "trials").best) == [0.5, 0.75, 0.75]
    assert list(parallel_coordinates_data(tuning).rank) == [0.5, 0.0, 1.0]


def row_of_study(root: FigureRoot) -> RowRuns:
    root.write(control=None)
    return collect(load(root.path, cache=False), "demo").row(str(root.rows[0]["name"]))


def test_seconds_that_nobody_recorded_are_counted_and_said(runs: Runs) -> None:
    tuning = tuning_data(runs, row_of(runs, "none"))
    tuning.trials.loc[4, "seconds"] = np.nan
    data = best_so_far_data(tuning, "hours")
    assert data.unknown == 1
    assert data.cost[4] == data.cost[3]


def test_parallel_coordinates_place_values_between_the_ends_of_their_ranges(runs: Runs) -> None:
    tuning = tuning_data(runs, row_of(runs, "crd"))
    data = parallel_coordinates_data(tuning)
    assert data.names == ("learning_rate", "beta", "valid_loss")
    values = tuning.trials["value"].dropna().sort_values()
    for line, (number, trial) in enumerate(tuning.trials.iterrows()):
        assert data.heights[line, 0] == pytest.approx((np.log10(trial["learning_rate"]) + 4) / 2)
        assert data.heights[line, 1] == pytest.approx(trial["beta"])
        if number == 3:
            assert np.isnan([data.heights[line, 2], data.rank[line]]).all()
        else:
            share = (trial["value"] - values.iloc[0]) / (values.iloc[-1] - values.iloc[0])
            assert data.heights[line, 2] == pytest.approx(share)
            assert data.rank[line] == pytest.approx(list(values.index).index(number) / 8)


@pytest.mark.parametrize("scale", [Scale(1e-4, 1e-2, True), Scale(0.02, 1.0, True), Scale(0.0, 1.0, False)])
def test_ticks_are_a_few_and_lie_on_their_axis(scale: Scale) -> None:
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 8
    assert (scale.place(ticks) >= -1e-9).all()
    assert (scale.place(ticks) <= 1 + 1e-9).all()


def test_a_confusion_matrix_counts_all_seeds(runs: Runs) -> None:
    data = confusion_data(runs, row_of(runs, "none"))
    counted = np.zeros((3, 3), int)
    for path in (runs.root / "rows" / "none-00000000" / "confirm").iterdir():
        outputs = read_result(TrialDir(path).result).predictions["test"]
        for logits, label in zip(outputs.logits, outputs.labels, strict=True):
            counted[label, int(np.argmax(logits))] += 1
    assert (data.counts == counted).all()
    assert data.counts.sum() == 3 * len(LABELS)
    assert (data.classes, data.runs) == (CLASSES, 3)
    assert np.allclose(data.shares.sum(1), 1)


def test_a_class_that_does_not_occur_has_no_shares(runs: Runs) -> None:
    data = confusion_data(runs, row_of(runs, "none"))
    data.counts[1] = 0
    assert np.isnan(data.shares[1]).all()
    assert np.isfinite(data.shares[[0, 2]]).all()


def test_a_forest_has_the_tables_differences_and_every_row(runs: Runs) -> None:
    rows = [row_of(runs, name) for name in ("none", "crd", "late")]
    data = forest_data(runs, rows, rows[0], "accuracy")
    assert [compared.label for compared in data] == [row.spec.label for row in rows[1:]]
    assert data[0].difference == score_rows(runs, rows, rows[0], "sd")["accuracy"]["crd"].difference
    assert data[0].difference is not None
    assert (data[0].n, data[1].n, data[1].difference) == (2, 0, None)


def test_what_is_not_there_yet_is_said_with_how_far_the_row_is(runs: Runs) -> None:
    late = row_of(runs, "late")
    for compute in (lambda: learning_curve_data(runs, late, "valid_loss"), lambda: confusion_data(runs, late)):
        with pytest.raises(UserError, match=r"Not begun.*: no .* \(tuning 0/10\)"):
            compute()
