"""Two rows side by side: what their seeds say, and what their test samples say."""

import json

import numpy as np
import pytest
from roots import Lab, predicted, student_config
from scipy import stats

from analysis import compare, load, per_class
from analysis.__main__ import main
from analysis.tables.comparison import comparison_text
from mmkd.errors import UserError
from mmkd.result_file import Predictions, read_result, write_result


def right(accuracy: float, seed: int) -> np.ndarray:
    outputs = predicted(accuracy, seed)
    return outputs.logits.argmax(axis=1) == outputs.labels


def test_over_seeds_it_is_welchs_test(ablation: Lab) -> None:
    found = compare(load(ablation.path, cache=False), "demo", "crd", "none")
    test = stats.ttest_ind([74, 75, 76], [70, 71, 72], equal_var=False)
    assert (found.a, found.b, found.seeds_a, found.seeds_b) == ("CRD on attention maps", "Student without KD", 3, 3)
    assert found.over_seeds.value == pytest.approx(4.0)
    assert found.over_seeds.p == pytest.approx(test.pvalue)
    assert (found.over_seeds.low, found.over_seeds.high) == pytest.approx(tuple(test.confidence_interval()))


def test_over_samples_it_is_mcnemars_seed_by_seed_and_pooled_by_sample(ablation: Lab) -> None:
    found = compare(load(ablation.path, cache=False), "demo", "crd", "none")
    a, b = right(0.74, 1), right(0.70, 1)
    first = found.pairs[0]
    assert (first.seed, first.only_a, first.only_b) == (1, int(np.sum(a & ~b)), int(np.sum(b & ~a)))
    assert first.p == pytest.approx(stats.binomtest(first.only_a, first.only_a + first.only_b).pvalue)
    assert found.samples == 1000
    assert found.over_samples.value == pytest.approx(found.over_seeds.value)
    assert found.over_samples.low is not None
    assert found.over_samples.high is not None
    assert found.over_samples.low < 4 < found.over_samples.high


def test_the_probability_of_better_is_called_indicative_below_29_pairs(ablation: Lab) -> None:
    found = compare(load(ablation.path, cache=False), "demo", "crd", "none")
    assert found.better == 1.0
    assert "P(A > B) = 1.00 over 3 pairs of runs: indicative only, below 29 pairs" in comparison_text(found)


def test_one_seed_has_no_interval_over_seeds_but_one_over_samples(lab: Lab) -> None:
    lab.row("a", [0.8])
    lab.row("b", [0.7])
    lab.study("demo")
    found = compare(load(lab.path, cache=False), "demo", "a", "b")
    assert found.over_seeds.p is None
    assert found.over_samples.p is not None
    assert found.over_samples.p < 0.05
    text = comparison_text(found)
    assert ("p < 0.001" in text) == (found.over_samples.p < 0.001)
    assert "p = 0.000" not in text
    assert "+10.00 (no interval: too few seeds, or the same difference in all)" in text


def test_rows_of_different_samples_cannot_be_paired(ablation: Lab) -> None:
    trial = ablation.row_of("crd").final_run(1, "abcdef01")
    result = read_result(trial.result)
    test = result.predictions["test"]
    renamed = {**result.predictions, "test": Predictions(test.logits, test.labels, [f"x{k}" for k in test.ids])}
    write_result(trial, type(result)(**{**vars(result), "predictions": renamed}))
    with pytest.raises(UserError, match="measured on different test samples"):
        compare(load(ablation.path, cache=False), "demo", "crd", "none")


def test_what_makes_the_rows_unlike_is_said(lab: Lab) -> None:
    lab.row("a", [0.8], trials=1)
    lab.row("b", [0.7], trials=2)
    lab.row("c", [0.7], trials=3)
    lab.study("demo")
    assert compare(load(lab.path, cache=False), "demo", "a", "b").warnings == (
        "tuning budgets (trials) are unequal: 1: a; 2: b",
    )


def test_the_command_prints_text_or_json(ablation: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", "crd", "none", "--root", str(ablation.path)]
    assert main(command) == 0
    assert "other seeds?    +4.00 [+1.73, +6.27], p = 0.008" in capsys.readouterr().out
    assert main([*command, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["over_seeds"]["value"] == pytest.approx(4.0)


def test_the_users_errors_are_one_line(ablation: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "crd", "nono", "--root", str(ablation.path)]) == 2
    assert "unknown row of study demo 'nono'; did you mean none?" in capsys.readouterr().err
    ablation.tune(ablation.begin_row("early"), [0.5])
    ablation.study()
    assert main(["compare", "crd", "early", "--root", str(ablation.path)]) == 2
    assert "early: no score yet (tuning 1/2)" in capsys.readouterr().err


def test_predictions_are_a_tidy_frame_of_what_counts(ablation: Lab) -> None:
    row = ablation.row_of("crd")
    predictions = load(ablation.path, cache=False).predictions
    assert set(predictions["directory"].str.split("/").str[0]) == {"rows", "teachers"}
    assert len(predictions) == (6 + 3) * 2 * 1000  # runs x splits x samples; tuning's are not among them
    run = predictions.query(f"directory == 'rows/{row.path.name}/confirm/1-abcdef01' and split == 'test'")
    assert run["correct"].mean() == pytest.approx(0.74)
    assert list(run["sample"][:2]) == ["0", "1"]
    sureness = predicted(0.74, 1, row.path.name).logits.max()
    share = np.exp(sureness) / (np.exp(sureness) + 2)  # softmax of that, 0, 0
    assert run["probability"].to_numpy() == pytest.approx(np.full(1000, share))
    assert run["nll"].min() == pytest.approx(-np.log(share))


def test_predictions_are_not_read_before_they_are_asked_for(ablation: Lab) -> None:
    runs = load(ablation.path, cache=False)
    assert "predictions" not in vars(runs)
    assert runs.predictions is runs.predictions


def test_a_root_without_results_has_an_empty_frame_of_predictions(lab: Lab) -> None:
    lab.begin_row("crd")
    found = load(lab.path, cache=False).predictions
    assert len(found) == 0
    assert {"directory", "split", "sample", "label", "predicted", "correct"} <= set(found.columns)


def test_each_class_has_precision_recall_and_f1_over_seeds(ablation: Lab) -> None:
    found = per_class(load(ablation.path, cache=False), "demo").set_index(["row", "name"])
    assert list(found.loc["crd"].index) == ["sad", "neutral", "happy"]
    assert list(found.loc["crd", "samples"]) == [380, 320, 300]
    line = found.loc[("crd", "sad")]
    outputs = [predicted(accuracy, seed) for seed, accuracy in ((1, 0.74), (2, 0.75), (3, 0.76))]
    recalls = [np.mean(o.logits[o.labels == 0].argmax(axis=1) == 0) for o in outputs]
    precisions = [np.mean(o.labels[o.logits.argmax(axis=1) == 0] == 0) for o in outputs]
    assert (line["recall"], line["recall_sd"]) == pytest.approx((np.mean(recalls), np.std(recalls, ddof=1)))
    assert line["precision"] == pytest.approx(np.mean(precisions))
    f1 = [2 * p * r / (p + r) for p, r in zip(precisions, recalls, strict=True)]
    assert (line["f1"], line["seeds"]) == pytest.approx((np.mean(f1), 3))


def test_the_fixture_predicts_with_the_accuracy_that_it_says() -> None:
    assert right(0.74, 1).mean() == 0.74
    assert student_config(1, None).seed == 1
