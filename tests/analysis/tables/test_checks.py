"""Each defect that is planted in a study is flagged, and a sound study is not."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np
import pytest
from roots import ENVIRONMENT, Lab, fail, finish, student_config, teacher_config

from analysis import examine, load, table, to_csv
from analysis.doctor import examination_text
from mmkd.attempts import record_run
from mmkd.config import identity, to_json
from mmkd.files import read_json, write_json
from mmkd.result_file import read_result, write_result
from mmkd.rundir import RowDir


def warnings(lab: Lab) -> str:
    return "\n".join(table(load(lab.path, cache=False), "demo").warnings)


def doctor(lab: Lab) -> str:
    return examination_text(examine(load(lab.path, cache=False)))


def change(row: RowDir, **identity: object) -> None:
    """Give a row's identity other values."""
    facts = read_json(row.row)
    assert facts is not None
    write_json(row.row, {**facts, "identity": {**facts["identity"], **identity}})


def test_a_sound_study_is_not_flagged(ablation: Lab) -> None:
    assert warnings(ablation) == ""


def test_a_winner_that_cannot_be_read_is_no_row_that_was_extended(ablation: Lab) -> None:
    ablation.row_of("crd").winner.write_text("garbage")
    said = warnings(ablation)
    assert "winner.json" in said
    assert "extended" not in said


def test_rows_of_an_older_algorithm_version_are_shown_as_they_were_and_called_so_in_one_line(ablation: Lab) -> None:
    before = table(load(ablation.path, cache=False), "demo")
    for row in ablation.root.rows():
        change(row, algorithm=1)
    now = table(load(ablation.path, cache=False), "demo")
    assert now.sections == before.sections
    said = "2 of 2 rows: algorithm version 1 (now 2), shown as they were; a launch begins new rows"
    assert now.warnings == (said,)
    assert f"remark: study demo: {said}\n" in doctor(ablation)
    assert doctor(ablation).endswith("nothing is wrong\n")


def test_rows_of_two_algorithm_versions_are_not_comparable(ablation: Lab) -> None:
    change(ablation.row_of("crd"), algorithm=1)
    said = warnings(ablation)
    assert "algorithm versions are unequal: 2: Student without KD; 1: CRD on attention maps" in said
    assert "1 of 2 rows: algorithm version 1 (now 2)" in said


def test_the_table_names_the_rows_that_were_trained_in_bfloat16(ablation: Lab) -> None:
    change(ablation.row_of("crd"), training={"epochs": 3, "precision": "bf16"})
    notes = "\n".join(table(load(ablation.path, cache=False), "demo").notes)
    assert "trained with networks in bfloat16, evaluated in float32: CRD on attention maps" in notes


def test_a_trial_that_was_tried_again_under_a_new_number_takes_its_place(lab: Lab) -> None:
    row = lab.row("crd", [0.6, 0.7], trials=3)
    shutil.rmtree(row.trial(1).path)
    fail(row.trial(1), student_config(0, None), "error")
    lab.study()
    assert "1 of 3 tuning trials have no result; the same launch" in warnings(lab)
    again = student_config(0, None, learning_rate=1e-2)
    finish(row.trial(3), again, 0.9)
    value = read_result(row.trial(3).result).metrics["valid"]["loss"]
    winner = read_json(row.winner)
    assert winner is not None
    write_json(row.winner, {**winner, "trial": 3, "trials": 3, "numbers": 4, "value": value})
    assert warnings(lab) == ""


def unlike_budgets(lab: Lab) -> None:
    lab.choose(lab.row_of("crd"), {s: lab.row_of("crd").final_run(s, "abcdef01") for s in (1, 2, 3)}, trials=16)


def other_data_in_a_row(lab: Lab) -> None:
    finish(lab.row_of("crd").final_run(2, "abcdef01"), student_config(2, teacher_config(2), "e" * 64), 0.75)


def a_teacher_of_other_data(lab: Lab) -> None:
    teacher = teacher_config(2)
    finish(lab.root.teacher(identity(teacher)), teacher_config(2, fingerprint="e" * 64), 0.8)


def another_commit(lab: Lab) -> None:
    finish(
        lab.row_of("none").final_run(2, "abcdef01"), student_config(2, None, learning_rate=1e-2), 0.71, commit="b" * 40
    )


def a_seed_under_two_names(lab: Lab) -> None:
    row = lab.row_of("crd")
    shutil.rmtree(row.final_run(3, "abcdef01").path)
    shutil.copytree(row.final_run(2, "abcdef01").path, row.final_run(3, "abcdef01").path)


def seeds_that_changed_nothing(lab: Lab) -> None:
    first, second = (lab.row_of("crd").final_run(seed, "abcdef01") for seed in (1, 2))
    result = read_result(second.result)
    same = read_result(first.result).weights_sha256
    write_result(second, type(result)(**{**vars(result), "weights_sha256": same}))


def tuning_measured_on_test(lab: Lab) -> None:
    config = student_config(0, None, learning_rate=1e-2).model_copy(update={"evaluate_test": True})
    finish(lab.row_of("crd").trial(0), config, 0.5)


def selection_by_a_test_metric(lab: Lab) -> None:
    for row in lab.root.rows():
        change(row, selection="test_accuracy")


def a_winner_that_validation_did_not_choose(lab: Lab) -> None:
    finish(lab.row_of("crd").trial(1), student_config(0, None, learning_rate=1e-3), 0.9)


def final_runs_of_other_hyperparameters(lab: Lab) -> None:
    finish(lab.row_of("crd").final_run(2, "abcdef01"), student_config(2, teacher_config(2), learning_rate=0.5), 0.75)


def pruning_in_one_row(lab: Lab) -> None:
    change(lab.row_of("crd"), pruner="median")


def another_sampler(lab: Lab) -> None:
    for name, sampler in (("crd", "tpe"), ("none", "random")):
        change(lab.row_of(name), sampler=sampler)


def another_recipe(lab: Lab) -> None:
    for name, epochs in (("crd", 60), ("none", 40)):
        change(lab.row_of(name), training={"epochs": epochs, "batch_size": 16})


def another_range_of_the_learning_rate(lab: Lab) -> None:
    for name, high in (("crd", 0.1), ("none", 0.01)):
        change(lab.row_of(name), space={"learning_rate": {"low": 1e-4, "high": high}})


def a_lost_tuning_trial(lab: Lab) -> None:
    shutil.rmtree(lab.row_of("crd").trial(1).path)


def record(lab: Lab, name: str, seed: int, **facts: Any) -> None:
    """Give the only attempt of a final run other facts."""
    record_run(lab.row_of(name).final_run(seed, "abcdef01"), 1, **facts)


def another_torch(lab: Lab) -> None:
    record(lab, "crd", 2, versions={"torch": "2.7.0", "numpy": "2.1.0"})


def another_numpy(lab: Lab) -> None:
    record(lab, "crd", 2, versions={"torch": "2.6.0", "numpy": "1.26.4"})


def another_python(lab: Lab) -> None:
    record(lab, "none", 1, python="3.13.0")


def another_device(lab: Lab) -> None:
    record(lab, "none", 1, device="NVIDIA H100")


def other_code(lab: Lab) -> None:
    record(lab, "none", 1, code="d" * 12)


def nothing_recorded(lab: Lab) -> None:
    for path in lab.path.glob("*/*/**/attempts/1.job.json"):
        write_json(path, {key: value for key, value in (read_json(path) or {}).items() if key not in ENVIRONMENT})


def changed_config(lab: Lab, name: str, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the config.json of a final run whose row says how it is trained."""
    row = lab.row_of(name)
    written = to_json(student_config(1, None, learning_rate=1e-2))
    training = {key: value for key, value in written["training"].items() if key != "learning_rate"}
    for one in lab.root.rows():
        change(one, training=training, student=written["network"])
    config = read_json(row.final_run(2, "abcdef01").config)
    assert config is not None
    edit(config)
    write_json(row.final_run(2, "abcdef01").config, config)


def final_runs_of_more_epochs(lab: Lab) -> None:
    changed_config(lab, "crd", lambda config: config["training"].update(epochs=200))


def final_runs_of_another_batch_size(lab: Lab) -> None:
    changed_config(lab, "crd", lambda config: config["training"].update(batch_size=8))


def final_runs_of_a_wider_student(lab: Lab) -> None:
    changed_config(lab, "crd", lambda config: config["network"].update(width=64))


def final_runs_of_another_pairing(lab: Lab) -> None:
    changed_config(lab, "crd", lambda config: config.update(pairing="complete"))


def a_fixed_learning_rate_in_the_control(lab: Lab) -> None:
    change(lab.row_of("crd"), space={"learning_rate": {"low": 1e-4, "high": 1e-2}})
    change(lab.row_of("none"), fixed={"learning_rate": 1e-3})


def copied_weights(lab: Lab) -> None:
    source, target = (lab.row_of(name).final_run(1, "abcdef01") for name in ("crd", "none"))
    result = read_result(target.result)
    write_result(target, replace(result, weights_sha256=read_result(source.result).weights_sha256))


def copied_predictions(lab: Lab) -> None:
    source, target = (lab.row_of(name).final_run(1, "abcdef01") for name in ("crd", "none"))
    theirs, ours = read_result(source.result), read_result(target.result)
    write_result(target, replace(ours, metrics=theirs.metrics, predictions=theirs.predictions))


def one_teacher_for_all_seeds(lab: Lab) -> None:
    for seed, accuracy in ((1, 0.74), (2, 0.75), (3, 0.76)):
        trial = lab.row_of("crd").final_run(seed, "abcdef01")
        finish(trial, student_config(seed, teacher_config(1), learning_rate=1e-2), accuracy)


def several_complete_attempts(lab: Lab) -> None:
    record_run(lab.row_of("crd").final_run(2, "abcdef01"), 2, attempt=2, end="complete", **ENVIRONMENT)


def training_that_ended_too_early(lab: Lab) -> None:
    for seed in (1, 2):
        trial = lab.row_of("none").final_run(seed, "abcdef01")
        result = read_result(trial.result)
        write_result(trial, replace(result, best_epoch=result.epochs))


def a_seed_under_another_name(lab: Lab) -> None:
    finish(lab.row_of("crd").final_run(2, "abcdef01"), student_config(7, teacher_config(7), learning_rate=1e-2), 0.75)


def a_run_of_another_split(lab: Lab) -> None:
    finish(
        lab.row_of("none").final_run(2, "abcdef01"), student_config(2, None, split="a" * 64, learning_rate=1e-2), 0.7
    )


def other_test_samples(lab: Lab) -> None:
    trial = lab.row_of("none").final_run(1, "abcdef01")
    result = read_result(trial.result)
    test = replace(result.predictions["test"], ids=[f"other-{i}" for i in range(1000)])
    write_result(trial, replace(result, predictions={"test": test}))


def other_test_labels(lab: Lab) -> None:
    trial = lab.row_of("none").final_run(1, "abcdef01")
    result = read_result(trial.result)
    test = replace(result.predictions["test"], labels=np.roll(result.predictions["test"].labels, 1))
    write_result(trial, replace(result, predictions={"test": test}))


def a_winner_of_a_better_value(lab: Lab) -> None:
    winner = lab.row_of("crd").winner
    write_json(winner, {**(read_json(winner) or {}), "value": 0.01})


def fewer_seeds(lab: Lab) -> None:
    lab.rows[0]["seeds"] = [1, 2]
    lab.study(control="none")


def a_damaged_result(lab: Lab) -> None:
    lab.row_of("crd").final_run(2, "abcdef01").result.write_bytes(b"garbage")


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (another_torch, "torch versions are unequal: 2.6.0 (12 of 13 runs), 2.7.0 (1 of 13 runs)"),
        (another_numpy, "numpy versions are unequal: 2.1.0 (12 of 13 runs), 1.26.4 (1 of 13 runs)"),
        (another_python, "Python versions are unequal: 3.11.9 (12 of 13 runs), 3.13.0 (1 of 13 runs)"),
        (another_device, "devices are unequal: cpu (12 of 13 runs), NVIDIA H100 (1 of 13 runs)"),
        (other_code, "code hashes are unequal: cccccccccccc (12 of 13 runs), dddddddddddd (1 of 13 runs)"),
        (nothing_recorded, "code hashes are not recorded, of 13 runs"),
        (final_runs_of_more_epochs, "final runs are not the row's: training.epochs 200, in row.json 2 (2-abcdef01)"),
        (final_runs_of_another_batch_size, "final runs are not the row's: training.batch_size 8, in row.json 64"),
        (final_runs_of_a_wider_student, "final runs are not the row's: network.width 64, in row.json 32 (2-abcdef01)"),
        (final_runs_of_another_pairing, "final runs are not the row's: pairing complete, in row.json others"),
        (a_fixed_learning_rate_in_the_control, "learning rates are unequal: fixed at 0.001: Student without KD; tuned"),
        (copied_weights, "final runs of several rows have the same weights: rows/none-01234567/confirm/1-abcdef01"),
        (copied_predictions, "final runs of several rows have the same test scores to the last digit: rows/none-"),
        (one_teacher_for_all_seeds, "CRD on attention maps: 1 teacher for 3 final runs"),
        (several_complete_attempts, "confirm/2-abcdef01: 2 complete attempts: test was read more than once"),
        (training_that_ended_too_early, "not trained to the end: the best epoch is the last one in half of the runs"),
        (a_seed_under_another_name, "other seeds than their directories are named after: 2-abcdef01"),
        (a_run_of_another_split, "of another split than the row's: rows/none-01234567/confirm/2-abcdef01"),
        (other_test_samples, "test samples (ids and labels) are unequal"),
        (other_test_labels, "test samples (ids and labels) are unequal"),
        (a_winner_of_a_better_value, "validation loss of trial 0: winner.json says 0.01, the trial 2.0"),
        (fewer_seeds, "seeds are unequal: 1, 2: Student without KD; 1, 2, 3: CRD on attention maps"),
        (a_damaged_result, "not counted: rows/crd-01234567/confirm/2-abcdef01"),
        (unlike_budgets, "tuning budgets (trials) are unequal: 2: Student without KD; 16: CRD on attention maps"),
        (other_data_in_a_row, "of other data than the row's: rows/crd-01234567/confirm/2-abcdef01"),
        (a_teacher_of_other_data, "CRD on attention maps: of other data than the row's: teachers/"),
        (another_commit, "aaaaaaaaaaaa (12 of 13 runs), bbbbbbbbbbbb (1 of 13 runs)"),
        (a_seed_under_two_names, "duplicate seeds: the runs 2-abcdef01, 3-abcdef01 all have seed 2"),
        (seeds_that_changed_nothing, "the runs 1-abcdef01, 2-abcdef01 all ended with the same weights"),
        (tuning_measured_on_test, "selection on test is possible: 1 tuning trials were measured on test (0)"),
        (selection_by_a_test_metric, "selection on test: its selection metric is 'test_accuracy'"),
        (a_winner_that_validation_did_not_choose, "the winner is trial 0, but trial 1 is the best by validation loss"),
        (final_runs_of_other_hyperparameters, "final runs have other hyperparameters than trial 0"),
        (pruning_in_one_row, "pruners are unequal: none: Student without KD; median: CRD on attention maps"),
        (another_sampler, "samplers are unequal: random: Student without KD; tpe: CRD on attention maps"),
        (another_recipe, "training.epochs are unequal: 40: Student without KD; 60: CRD on attention maps"),
        (another_range_of_the_learning_rate, "space.learning_rate.high are unequal: 0.01: Student without KD"),
        (a_lost_tuning_trial, "CRD on attention maps: 1 of 2 tuning trials have no result"),
    ],
)  # fmt: skip
def test_a_planted_defect_is_flagged(ablation: Lab, plant: Callable[[Lab], None], words: str) -> None:
    plant(ablation)
    assert words in warnings(ablation)
    lines = csv.DictReader(StringIO(to_csv(table(load(ablation.path, cache=False), "demo"))))
    assert any(words in line["text"] for line in lines if line["metric"] == "warning")


def test_uncommitted_changes_are_flagged_also_where_all_runs_have_them(lab: Lab) -> None:
    lab.row("none", [0.7, 0.71])
    for path in lab.path.glob("rows/*/*/*/attempts/1.job.json"):
        write_json(path, {**(read_json(path) or {}), "git": {"commit": "c" * 40, "diff": "0123"}})
    lab.study("demo")
    assert warnings(lab) == "the code had uncommitted changes: cccccccccccc+0123"


def test_a_seed_that_the_study_lists_twice_counts_once(ablation: Lab) -> None:
    path = ablation.root.study("demo")
    study = read_json(path)
    assert study is not None
    study["rows"][1]["seeds"] = [1, 2, 3, 3]
    write_json(path, study)
    assert "CRD on attention maps: duplicate seeds: the study lists 3 twice" in warnings(ablation)
    assert table(load(ablation.path, cache=False), "demo").rows[-1].cells["seeds"].text == "3"


def test_many_rows_are_not_all_listed(lab: Lab) -> None:
    for number in range(7):
        lab.row(f"row{number}", [0.7], trials=1 if number else 2)
    lab.study("demo")
    assert "1: row1, row2, row3, row4 and 2 more" in warnings(lab)


def test_rows_of_one_label_are_told_apart_by_their_groups(lab: Lab) -> None:
    lab.row("a", [0.7], label="CRD", group="first", trials=1)
    lab.row("b", [0.7], label="CRD", group="second", trials=2)
    lab.study("demo")
    assert "1: CRD [first]; 2: CRD [second]" in warnings(lab)
