"""Everything under a root is in a frame, or rejected with its reason."""

from dataclasses import replace

import h5py
import pandas as pd
import pytest
from roots import SAMPLES, Lab, fail, finish, predicted, student_config, teacher_config

from analysis import load
from analysis.loading.frames import TRIALS
from analysis.loading.predictions import predictions
from mmkd.attempts import record_submission
from mmkd.config import DrawnSplit, identity, to_json
from mmkd.errors import UserError
from mmkd.files import write_json
from mmkd.metrics_log import append_metrics
from mmkd.records import SplitRecord, store_split
from mmkd.result_file import Status, read_result, write_result


def test_an_empty_root_gives_empty_frames_with_all_columns(lab: Lab) -> None:
    (lab.path / "rows").mkdir()
    runs = load(lab.path, cache=False)
    assert len(runs.trials) == len(runs.rows) == len(runs.rejected) == 0
    assert {"kind", "status", "test_accuracy", "learning_rate"} <= set(runs.trials.columns)


def test_a_missing_root_is_the_users_error(lab: Lab) -> None:
    with pytest.raises(UserError, match="nowhere: no such directory"):
        load(lab.path / "nowhere")


def test_trials_of_all_kinds_are_one_line_each(ablation: Lab) -> None:
    runs = load(ablation.path, cache=False)
    assert runs.trials["kind"].value_counts().to_dict() == {"confirm": 6, "tuning": 4, "teacher": 3}
    tuned = runs.trials[runs.trials["kind"] == "tuning"].iloc[1]
    assert (tuned["number"], tuned["learning_rate"], tuned["alpha"], tuned["temperature"]) == (1, 1e-3, 0.5, 2.0)
    assert pd.isna(tuned["test_accuracy"])
    assert tuned["valid_accuracy"] == 0.5
    assert list(runs.rows["name"]) == ["crd", "none"]
    assert list(runs.rows["sampled"]) == [2, 2]
    assert runs.rejected.empty


def test_a_study_names_its_rows_of_which_several_may_be_one_method(ablation: Lab) -> None:
    runs = load(ablation.path, cache=False)
    assert list(runs.studies["name"]) == ["none", "crd"]
    assert set(runs.studies["row"]) == set(runs.rows["row"])
    assert list(runs.studies["control"]) == [True, False]
    merged = runs.studies.merge(runs.trials, on="row")
    assert merged.groupby("name").size().to_dict() == {"crd": 5, "none": 5}


def test_a_study_that_cannot_be_read_is_rejected(ablation: Lab) -> None:
    ablation.root.study("torn").write_text('{"name": "torn"')
    runs = load(ablation.path, cache=False)
    assert list(runs.studies["study"].unique()) == ["demo"]
    assert list(runs.rejected["path"]) == ["studies/torn.json"]


def test_a_final_run_knows_its_teacher(ablation: Lab) -> None:
    trials = load(ablation.path, cache=False).trials
    run = trials[(trials["kind"] == "confirm") & (trials["seed"] == 2) & trials["teacher"].notna()].iloc[0]
    assert run["teacher"] == f"teachers/{identity(teacher_config(2))[:16]}"
    assert trials.loc[trials["kind"] == "teacher", "teacher_family"].unique() == [run["teacher_family"]]


def test_curves_have_one_line_an_epoch_also_while_a_trial_runs(lab: Lab) -> None:
    row = lab.begin_row("crd")
    finish(row.trial(0), student_config(0, None), 0.6)
    fail(row.trial(1), student_config(0, None), "timeout")
    append_metrics(row.trial(1), {"epoch": 1, "valid_loss": 0.9, "seconds": 3.0, "time": 1.0})
    curves = load(lab.path, cache=False).curves
    assert list(zip(curves["epoch"], curves["valid_loss"], strict=True)) == [(1, 1.0), (2, 0.5), (1, 0.9)]
    assert "time" not in curves.columns


def test_a_failed_trial_has_its_class_and_its_attempts_seconds(lab: Lab) -> None:
    row = lab.begin_row("crd")
    fail(row.trial(0), student_config(0, None), "out_of_memory", seconds=12.5)
    fail(row.trial(1), student_config(0, None), "out_of_memory", seconds=12.5, attempts=3)
    runs = load(lab.path, cache=False)
    due, trial, attempt = runs.trials.iloc[0], runs.trials.iloc[1], runs.attempts.iloc[0]
    assert (due["status"], due["failure"], due["message"]) == ("retry_due", "out_of_memory", "it broke")
    assert (due["seconds"], due["attempts"], attempt["host"]) == (12.5, 1, "node1")
    assert (trial["status"], trial["failure"], trial["message"]) == ("failed", "out_of_memory", "it broke")
    assert (trial["seconds"], trial["attempts"]) == (37.5, 3)


def test_diverged_and_empty_trials_are_in_the_frame(lab: Lab) -> None:
    row = lab.begin_row("crd")
    finish(row.trial(0), student_config(0, None), 0.0, status=Status.DIVERGED)
    row.trial(1).path.mkdir(parents=True)
    trials = load(lab.path, cache=False).trials
    assert list(trials["status"]) == ["diverged", "sampled"]
    assert trials["message"].iloc[0] == "epoch 1: the loss is nan"
    assert pd.isna(trials["failure"].iloc[0])


def test_final_runs_that_the_winner_does_not_name_are_superseded(ablation: Lab) -> None:
    row = ablation.root.rows()[0]
    finish(row.final_run(1, "0000000000"), student_config(1, None), 0.1)
    trials = load(ablation.path, cache=False).trials
    assert list(trials.loc[trials["superseded"], "directory"]) == [f"rows/{row.path.name}/confirm/1-00000000"]


def test_what_cannot_be_read_is_rejected_with_its_reason(ablation: Lab) -> None:
    row = ablation.root.rows()[0]
    truncated = row.final_run(1, "abcdef01").result
    truncated.write_bytes(truncated.read_bytes()[:500])
    torn, old, stray = row.trial(7), row.trial(8), row.path / "trials" / "copy"
    for path in (torn.path, old.path, stray):
        path.mkdir()
    torn.config.write_text('{"algo')
    write_json(old.config, {**to_json(student_config(0, None)), "algorithm": 0})
    (ablation.path / "rows" / "junk").mkdir()
    rejected = dict(load(ablation.path, cache=False).rejected.itertuples(index=False))
    directory = f"rows/{row.path.name}"
    assert "not a readable result" in rejected[f"{directory}/confirm/1-abcdef01"]
    assert "not a whole JSON value" in rejected[f"{directory}/trials/7"]
    assert "algorithm version 0" in rejected[f"{directory}/trials/8"]
    assert "not the name" in rejected[f"{directory}/trials/copy"]
    assert "row.json: No such file" in rejected["rows/junk"]
    assert len(rejected) == 5
    assert not any(str(ablation.path) in reason for reason in rejected.values())


def test_trials_of_an_older_algorithm_version_are_read_and_their_teachers_found(ablation: Lab) -> None:
    row = ablation.row_of("crd")
    older = {"algorithm": 1}
    teacher = teacher_config(2).model_copy(update=older)
    finish(row.final_run(2, "abcdef01"), student_config(2, teacher).model_copy(update=older), 0.75)
    runs = load(ablation.path, cache=False)
    assert runs.rejected.empty
    read = runs.trials.set_index("directory").loc[f"rows/{row.path.name}/confirm/2-abcdef01"]
    assert (read["teacher"], read["test_accuracy"]) == (f"teachers/{identity(teacher)[:16]}", 0.75)


def test_a_result_of_a_newer_layout_is_rejected(ablation: Lab) -> None:
    trial = ablation.row_of("crd").trial(0)
    with h5py.File(trial.result, "a") as file:
        file.attrs["result_version"] = 99
    rejected = load(ablation.path, cache=False).rejected
    assert list(rejected["path"]) == [f"rows/{ablation.row_of('crd').path.name}/trials/0"]
    assert "result version 99 is newer than this mmkd reads" in rejected["reason"].iloc[0]


def test_trials_of_a_row_that_cannot_be_read_stay(ablation: Lab) -> None:
    row = ablation.root.rows()[0]
    row.row.write_text("{}")
    runs = load(ablation.path, cache=False)
    assert (runs.trials["row"] == row.path.name).sum() == 5
    assert list(runs.rejected["path"]) == [f"rows/{row.path.name}"]


def test_predictions_are_read_on_demand(ablation: Lab) -> None:
    stored = predictions(ablation.root.rows()[0].final_run(1, "abcdef01").path)
    assert sorted(stored) == ["test", "valid"]
    assert stored["test"].logits.shape == (SAMPLES, 3)


def test_predictions_and_trials_name_the_groups(lab: Lab) -> None:
    split = SplitRecord(scheme="group-folds", parts={"test": {"s10": ("0",), "s9": ("1",)}, "train": {}, "valid": {}})
    store_split(lab.root, split)
    grouped = replace(predicted(0.8, 1), groups=["s9"] * (SAMPLES // 2) + ["s10"] * (SAMPLES // 2))
    drawn_as = DrawnSplit(scheme="group-folds", replicate=0, digest=split.digest)
    row, config = lab.begin_row("crd"), student_config(1, None).model_copy(update={"split": drawn_as})
    final_run = row.final_run(1, "abcdef01")
    finish(final_run, config, 0.8, outputs=grouped)
    lab.choose(row, {1: final_run})
    lab.row("none", [0.7])
    runs = load(lab.path, cache=False)
    of_row = runs.trials.set_index("directory")["test_groups"]
    drawn = of_row.index.str.contains("crd")
    assert set(of_row[drawn]) == {"s9, s10"}
    assert of_row[~drawn].isna().all()
    groups = runs.predictions.merge(runs.trials[["directory", "row"]], on="directory").groupby("row")["group"]
    assert [sorted(own.dropna().unique()) for _, own in groups] == [["s10", "s9"], []]


def test_a_directory_in_which_nothing_was_launched_is_refused(lab: Lab) -> None:
    with pytest.raises(UserError, match="no rows, teachers or studies in it"):
        load(lab.path, cache=False)


def test_columns_come_in_one_order_the_documented_first_and_the_others_by_name(lab: Lab) -> None:
    trial = lab.begin_row("crd").trial(0)
    finish(trial, student_config(0, None), 0.5)
    result = read_result(trial.result)
    more = {**result.metrics["valid"], "recall_10": 0.1, "acc7": 0.2}
    write_result(trial, type(result)(**{**vars(result), "metrics": {"valid": more}}))
    columns = list(load(lab.path, cache=False).trials.columns)
    assert columns[: len(TRIALS)] == list(TRIALS)
    assert columns[len(TRIALS) :] == [
        f"valid_{name}" for name in ("acc7", "recall_0", "recall_1", "recall_2", "recall_10")
    ]


def test_columns_are_numbers_or_text_whatever_a_cluster_says(lab: Lab) -> None:
    row = lab.begin_row("crd")
    fail(row.trial(0), student_config(0, None), "timeout")
    fail(row.trial(1), student_config(0, None), "timeout")
    record_submission(row.trial(0), 1, job="17", devices=[0, 1], preempted=True, gpu_seconds=90)
    record_submission(row.trial(1), 1, job="18_2", devices=None, preempted=False)
    runs = load(lab.path, cache=False)
    first, second = runs.attempts.to_dict("records")
    assert (first["submitted.job"], second["submitted.job"]) == ("17", "18_2")
    assert (first["submitted.devices"], first["submitted.preempted"]) == ("[0, 1]", 1.0)
    assert pd.isna(second["submitted.devices"])
    assert {str(kind) for kind in runs.attempts.dtypes} == {"string", "int64", "float64", "Int64"}
    assert list(runs.trials["gpu_seconds"].dropna()) == [90.0]


def test_a_row_says_what_decides_it_a_column_a_value(lab: Lab) -> None:
    lab.begin_row("crd", space={"beta": {"low": 0.01, "high": 1.0, "log": True}}, sampler="gp", training={"epochs": 40})
    row = load(lab.path, cache=False).rows.iloc[0]
    assert (row["space.beta.high"], row["sampler"], row["training.epochs"], row["pruner"]) == (1.0, "gp", 40.0, "none")


def test_files_of_an_unforeseen_shape_reject_one_trial_and_no_other(ablation: Lab) -> None:
    row = ablation.row_of("crd")
    write_json(row.trial(0).job_record(1), {"seconds": "a minute", "end": "complete"})
    write_json(row.trial(1).job_record(1), 7)
    runs = load(ablation.path, cache=False)
    assert [path.rpartition("/")[2] for path in runs.rejected["path"]] == ["0", "1"]
    assert runs.rejected["reason"].str.contains("attempts/1.job.json").all()
    assert len(runs.trials) == 11


def test_directories_that_no_launch_makes_and_files_in_their_place_are_rejected(ablation: Lab) -> None:
    row = ablation.row_of("crd")
    (row.path / "notes").mkdir()
    (ablation.path / "rows" / "README").write_text("hello")
    rejected = dict(load(ablation.path, cache=False).rejected.itertuples(index=False))
    assert rejected == {f"rows/{row.path.name}/notes": "nothing that a launch makes", "rows/README": "not a directory"}
