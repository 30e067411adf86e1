"""The doctor finds what is wrong under a root, and accounts for every directory in it."""

import os
import re
import shutil

import pytest
from roots import Lab, fail, finish, student_config, teacher_config

from analysis import examine, load
from analysis.__main__ import main
from analysis.doctor import examination_text
from mmkd.files import write_json
from mmkd.finished import read_finished, write_finished
from mmkd.result_file import Status, read_result, write_result


def report(lab: Lab) -> str:
    return examination_text(examine(load(lab.path, cache=False)))


def directories(lab: Lab) -> set[str]:
    """What is on disk."""
    found = [*lab.path.glob("rows/*/trials/*"), *lab.path.glob("rows/*/confirm/*"), *lab.path.glob("teachers/*")]
    return {path.relative_to(lab.path).as_posix() for path in found}


@pytest.fixture
def messy(ablation: Lab) -> Lab:
    """Everything that can become of a directory."""
    row = ablation.row_of("crd")
    finish(row.final_run(1, "0000000000"), student_config(1, None), 0.4)
    row.trial(7).path.mkdir()
    row.trial(7).config.write_text('{"algo')
    fail(row.trial(8), student_config(0, None), "out_of_memory")
    fail(row.trial(11), student_config(0, None), "preempted")
    fail(row.trial(12), student_config(0, None), "out_of_memory", attempts=3)
    row.trial(9).path.mkdir()
    finish(row.trial(10), student_config(0, None), 0.0, status=Status.DIVERGED)
    (row.path / "trials" / "copy").mkdir()
    row.final_run(3, "abcdef01").result.write_bytes(b"\x89HDF")
    ablation.teacher(9, 0.8)
    studies = list(ablation.rows)
    ablation.row("other", [0.6])
    ablation.rows = studies
    return ablation


def test_nothing_is_wrong_with_a_sound_root(ablation: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--root", str(ablation.path)]) == 0
    assert capsys.readouterr().out == (
        "13 directories: 13 in a table\nremark: study demo: no plan: the study was launched by a version of mmkd that "
        "wrote none\nnothing is wrong\n"
    )


def test_every_directory_has_one_fate(messy: Lab) -> None:
    fates = examine(load(messy.path, cache=False)).fates
    assert sorted(fates["directory"]) == sorted(directories(messy))
    counts = fates["fate"].value_counts().to_dict()
    assert counts == {
        "in a table": 16,  # 6 + 3 tuning trials, 2 + 3 final runs, 2 teachers
        "rejected": 3,
        "superseded": 1,
        "teachers of runs that no table shows": 2,  # one of them of the run that cannot be read
        "of a row in no study": 3,
    }


def test_each_problem_is_said_with_its_reason(messy: Lab) -> None:
    said = report(messy)
    for words in (
        "rejected: rows/crd-01234567/trials/7: rows/crd-01234567/trials/7/config.json: not a whole JSON value",
        "rejected: rows/crd-01234567/trials/copy: not the name of a trial's directory",
        "rejected: rows/crd-01234567/confirm/3-abcdef01: rows/crd-01234567/confirm/3-abcdef01/result.h5: not a",
        "failed: rows/crd-01234567/trials/12: out_of_memory: it broke",
        "unfinished: trials that are sampled: 1 (rows/crd-01234567/trials/9)",
        "unfinished: trials that are to be retried after out_of_memory: 1 (rows/crd-01234567/trials/8)",
        "unfinished: trials that are to be retried after preempted: 1 (rows/crd-01234567/trials/11)",
        "remark: trials that diverged: 1 (rows/crd-01234567/trials/10)",
        "remark: rows/other-01234567: in no study's table",
        "unfinished: study demo: 1 of 2 rows have no final score: CRD on attention maps (final runs 2/3)",
        "extended: study demo: extended, and then another trial won: CRD on attention maps; test was also read",
    ):
        assert words in said
    assert main(["doctor", "--root", str(messy.path)]) == 1


@pytest.mark.parametrize(("attempts", "code"), [(1, 0), (2, 1)])
def test_a_trial_is_wrong_once_it_has_no_retries_left(ablation: Lab, attempts: int, code: int) -> None:
    fail(ablation.row_of("crd").trial(8), student_config(0, None), "error", attempts=attempts)
    assert main(["doctor", "--root", str(ablation.path)]) == code


def test_remarks_alone_are_not_wrong(ablation: Lab) -> None:
    studies = list(ablation.rows)
    ablation.row("other", [0.6])
    ablation.rows = studies
    ablation.study(control="none")
    assert main(["doctor", "--root", str(ablation.path)]) == 0


def test_missing_seeds_and_unequal_budgets_are_said(ablation: Lab) -> None:
    ablation.row("more", [0.7, 0.7, 0.7], trials=5)
    ablation.rows[-1]["seeds"] = [1, 2, 3, 4]
    ablation.study(control="none")
    said = report(ablation)
    assert "budgets: study demo: tuning budgets (trials) are unequal" in said
    assert "seeds: study demo: seeds are unequal" in said
    assert "more (final runs 3/4)" in said


def test_scores_that_are_not_the_predictions_are_found(ablation: Lab) -> None:
    trial = ablation.row_of("crd").final_run(2, "abcdef01")
    result = read_result(trial.result)
    better = {**result.metrics, "test": {**result.metrics["test"], "accuracy": 0.99}}
    write_result(trial, type(result)(**{**vars(result), "metrics": better}))
    where = "scores: rows/crd-01234567/confirm/2-abcdef01"
    assert f"{where}: test scores are not its predictions': accuracy 0.99, not 0.75" in report(ablation)


@pytest.mark.parametrize(("stored", "said"), [(b"others", "not those that result.h5 names"), (None, "No such file")])
def test_weights_that_are_not_those_of_the_result_are_said(ablation: Lab, stored: bytes | None, said: str) -> None:
    trial = next(trial for trial in ablation.row_of("crd").final_runs())
    assert "nothing is wrong" in report(ablation)
    if stored is None:
        trial.weights.unlink()
    else:
        trial.weights.write_bytes(stored)
    assert re.search(rf"weights: rows/crd-.*/weights\.pt: {said}.*; remove the directory", report(ablation))


def test_a_broken_study_is_said_and_the_others_are_looked_at(ablation: Lab) -> None:
    write_json(ablation.root.study("broken"), {"name": "broken"})
    said = report(ablation)
    assert "rejected: studies/broken.json: title: Field required" in said
    assert said.startswith("13 directories: 13 in a table")


def test_what_a_row_set_aside_is_said(ablation: Lab) -> None:
    row = ablation.row_of("crd")
    (row.path / "failed-1").mkdir()
    shutil.copytree(row.path / "trials", row.path / "failed-1" / "trials")
    assert "rows/crd-01234567/failed-1: 2 trials, set aside when none of them had completed" in report(ablation)


def test_a_teacher_that_tuning_used_is_in_a_table(ablation: Lab) -> None:
    ablation.teacher(0, 0.8)
    row = ablation.row_of("crd")
    finish(row.trial(0), student_config(0, teacher_config(0), learning_rate=1e-2), 0.5)
    assert set(examine(load(ablation.path, cache=False)).fates["fate"]) == {"in a table"}


def test_a_line_that_differs_from_its_directory_is_found(ablation: Lab) -> None:
    load(ablation.path)
    assert report(ablation).endswith("nothing is wrong\n")
    row = ablation.row_of("crd")
    lines = read_finished(row).trials
    wrong = {"test": {**lines["confirm/1-abcdef01"].metrics["test"], "accuracy": 0.75}}
    lines = {**lines, "confirm/1-abcdef01": lines["confirm/1-abcdef01"].model_copy(update={"metrics": wrong})}
    write_finished(row, lines.values())
    found = report(ablation)
    assert re.search(
        r"finished\.jsonl: rows/crd-\S+/confirm/1-abcdef01: its line has metrics\.test\.accuracy 0\.75", found
    )
    assert f"remove rows/{row.path.name}/finished.jsonl" in found


def test_a_result_that_rotted_behind_its_line_is_found(ablation: Lab) -> None:
    load(ablation.path)
    result = ablation.row_of("crd").final_run(1, "abcdef01").result
    before, content = result.stat(), bytearray(result.read_bytes())
    content[700] ^= 1
    result.write_bytes(content)
    os.utime(result, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(load(ablation.path).trials) == 13
    assert re.search(
        r"finished\.jsonl: \S+/1-abcdef01: its line hides that it cannot be read: .*checksum",
        examination_text(examine(load(ablation.path))),
    )
