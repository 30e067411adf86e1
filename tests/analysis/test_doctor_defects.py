"""Defects that a table does not show are found by the doctor: edited results, weights, configurations and journals."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from roots import Lab, student_config
from trained_root import build_trained

from analysis import examine, load
from analysis.__main__ import main
from analysis.doctor import examination_text
from mmkd.files import read_json, write_json
from mmkd.metrics import classification_metrics
from mmkd.result_file import read_result, write_result
from mmkd.rundir import Root, RowDir, TrialDir


def report(lab: Lab) -> str:
    return examination_text(examine(load(lab.path, cache=False)))


def a_better_score_on_valid(lab: Lab) -> None:
    """Edited and sealed again, so that another trial would have won."""
    trial = lab.row_of("crd").trial(1)
    result = read_result(trial.result)
    write_result(trial, replace(result, metrics={"valid": {**result.metrics["valid"], "loss": 0.1}}))


def another_config_than_was_trained(lab: Lab) -> None:
    path = lab.row_of("crd").final_run(2, "abcdef01").config
    config = read_json(path)
    assert config is not None
    write_json(path, {**config, "training": {**config["training"], "epochs": 1}})


def no_config(lab: Lab) -> None:
    lab.row_of("crd").final_run(2, "abcdef01").config.unlink()


def other_samples_in_one_seed(lab: Lab) -> None:
    trial = lab.row_of("none").final_run(3, "abcdef01")
    result = read_result(trial.result)
    test = replace(result.predictions["test"], ids=[f"other-{i}" for i in range(1000)])
    write_result(trial, replace(result, predictions={**result.predictions, "test": test}))


def no_predictions(lab: Lab) -> None:
    trial = lab.row_of("none").final_run(3, "abcdef01")
    result = read_result(trial.result)
    write_result(trial, replace(result, predictions={}))


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (a_better_score_on_valid, "crd-01234567/trials/1: valid scores are not its predictions': loss 0.1, not 2.0"),
        (another_config_than_was_trained, "2-abcdef01/config.json: not what was trained: training.epochs 1, result.h5"),
        (no_config, "2-abcdef01/config.json: gone or damaged; result.h5 has it too"),
        (other_samples_in_one_seed, "3-abcdef01: other test samples (ids and labels) than rows/none-01234567/confirm"),
        (no_predictions, "3-abcdef01: it has a test score, but no predictions to check it by"),
    ],
)  # fmt: skip
def test_a_planted_defect_is_found(ablation: Lab, plant: Callable[[Lab], None], words: str) -> None:
    plant(ablation)
    assert words in report(ablation)
    assert main(["doctor", "--root", str(ablation.path)]) == 1


def write_journal(row: RowDir, trials: int = 2) -> None:
    """A journal as Optuna writes it, with the values and learning rates of the trials in the row's directory."""
    journal = optuna.storages.journal.JournalFileBackend(str(row.journal))
    study = optuna.create_study(storage=optuna.storages.JournalStorage(journal))
    for number in range(trials):
        trial = study.ask({"learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)})
        study.tell(trial, read_result(row.trial(number).result).metrics["valid"]["loss"])
    rates = {number: student_config(0, None, learning_rate=10.0 ** -(number + 2)) for number in range(trials)}
    edit(row.journal, lambda entry: entry.update(param_value_internal=rates[entry["trial_id"]].training.learning_rate)
         if entry["op_code"] == 5 else None)  # fmt: skip


def edit(journal: Path, change: Callable[[dict[str, object]], object]) -> None:
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    for entry in entries:
        change(entry)
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def a_better_value(entry: dict[str, object]) -> None:
    if entry["op_code"] == 6 and entry["trial_id"] == 1 and entry.get("values"):
        entry["values"] = [0.1]


def another_learning_rate(entry: dict[str, object]) -> None:
    if entry["op_code"] == 5 and entry["trial_id"] == 1:
        entry["param_value_internal"] = 0.05


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (a_better_value, "journal.log: differs from the directories: trial 1: value 0.1, not 2.0"),
        (another_learning_rate, "differs from the directories: trial 1: learning_rate 0.05, not 0.001"),
        (lambda entry: entry.pop("op_code"), "journal.log: not as Optuna writes it (KeyError: 'op_code')"),
    ],
)
def test_a_changed_journal_is_found(ablation: Lab, change: Callable[[dict[str, object]], object], words: str) -> None:
    row = ablation.row_of("crd")
    write_journal(row)
    assert "nothing is wrong" in report(ablation)
    edit(row.journal, change)
    assert words in report(ablation)


def test_a_trial_that_the_journal_does_not_know_is_found(ablation: Lab) -> None:
    write_journal(ablation.row_of("crd"), trials=1)
    assert "journal.log: differs from the directories: trial 1 is not in it" in report(ablation)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, str]) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    return build_trained(folder, small_data, none={"method": "no_kd"}, kd={"method": "kd"}).path


def test_recomputing_agrees_with_what_was_trained(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--root", str(trained), "--recompute"])
    assert "recompute" not in capsys.readouterr().out


def test_outputs_and_metrics_that_were_edited_and_sealed_again_are_found(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Metrics, predictions and checksum agree with each other: only the weights tell."""
    trial = next(run for row in Root(trained).rows() if row.path.name.startswith("kd") for run in row.final_runs())
    before = trial.result.read_bytes()
    result = read_result(trial.result)
    test = result.predictions["test"]
    logits = 5 * np.eye(test.logits.shape[1], dtype=np.float32)[test.labels]
    metrics = classification_metrics(logits, test.labels, 0)
    edited = {**result.predictions, "test": replace(test, logits=logits)}
    write_result(trial, replace(result, metrics={**result.metrics, "test": metrics}, predictions=edited))
    try:
        main(["doctor", "--root", str(trained)])
        assert "scores:" not in capsys.readouterr().out
        assert main(["doctor", "--root", str(trained), "--recompute"]) == 1
        assert f"{trial.path.name}: its weights give other outputs for" in capsys.readouterr().out
    finally:
        trial.result.write_bytes(before)


def test_labels_that_were_edited_are_found(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial: TrialDir = Root(trained).teachers()[0]
    before = trial.result.read_bytes()
    result = read_result(trial.result)
    test = result.predictions["test"]
    labels = test.logits.argmax(axis=1)
    edited = {**result.predictions, "test": replace(test, labels=labels)}
    metrics = classification_metrics(test.logits, labels, 0)
    write_result(trial, replace(result, metrics={**result.metrics, "test": metrics}, predictions=edited))
    try:
        assert main(["doctor", "--root", str(trained), "--recompute"]) == 1
        assert "its test samples or labels are not those of the data set" in capsys.readouterr().out
    finally:
        trial.result.write_bytes(before)
