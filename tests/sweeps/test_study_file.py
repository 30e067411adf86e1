"""The study file: what it may say, and what is said where it may not."""

from pathlib import Path

import pytest
from controlled import rows_of

from mmkd.errors import UserError
from mmkd.records import differences
from sweeps.study_file import find_study, load_study, parse_override, study_names


@pytest.mark.parametrize("name", study_names())
def test_every_study_that_comes_with_mmkd_is_valid(name: str) -> None:
    assert load_study(find_study(name)).rows


def test_an_unknown_study_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(UserError, match=r"crd_atention.*did you mean crd_attention"):
        find_study("crd_atention")


def test_the_name_of_a_file_that_is_here_without_its_ending_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("")
    with pytest.raises(UserError, match=r"no study 'mine' .*: --study mine\.toml"):
        find_study("mine")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("defaults.trails=3", r"defaults.trails: unknown key, did you mean trials"),
        ("defaults.trials=0", r"defaults.trials: .*greater than or equal to 1 \(is 0\)"),
        ("defaults.sampler='grid'", r"defaults.sampler: .*'random', 'tpe'.*\(is 'grid'\)"),
        ("rows.crd.space.beta={low=0.5, high=0.1}", r"rows.crd.space.beta.*low = 0.5 is not below high = 0.1"),
        ("rows.crd.space.beta={low=0.0, high=2.0}", r"rows.crd.space: beta must be in \[0, 1\]"),
        ("rows.crd.space.temperature={low=0.0, high=1.0}", r"temperature is above 0"),
        ("rows.crd.space.alpha={low=0.0, high=1.0, log=true}", r"logarithmic range begins above 0"),
        ("rows.crd.space.alpha={low=0.0, high=0.5, default=1.0}", r"default = 1.0 is outside of 0.0 to 0.5"),
        ("rows.crd.name=no_kd", r"two rows are called no_kd"),
        ("rows.crd.name='../x'", r"row '../x': use 1 to 80 letters"),
        ("control=nobody", r"control = 'nobody' is no row"),
        ("rows.crd.control=nobody", r"row crd: control = 'nobody' is no other row \(other rows: no_kd\)"),
        ("rows.crd.control=crd", r"row crd: control = 'crd' is no other row"),
        ("rows=[]", r"rows: .*at least 1"),
    ],
)
def test_a_wrong_value_is_refused_with_file_key_and_choices(study_file: Path, change: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        load_study(study_file, [parse_override(change)])
    assert str(refused.value).startswith(str(study_file))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rows.crd.method=crdd", r"row crd: unknown method 'crdd'; did you mean crd"),
        ("rows.crd.level=maps", r"row crd: unknown level of crd 'maps'.*attention_maps"),
        ("rows.crd.settings.embeding=3", r"settings of method crd: embeding: unknown key, did you mean embedding"),
        ("rows.no_kd.space.beta={low=0.0, high=1.0}", r"row no_kd: space.beta: method no_kd has none"),
        ("primary=smell", r"unknown primary modality 'smell' \(choices: audio, language, video\)"),
        ("defaults.pairing=smell", r"unknown pairing 'smell'.*complete"),
        ("student.width=9", r"student: .*heads = 2 does not divide width = 9"),
        ("teacher.preset=huge", r"unknown preset 'huge' \(choices: mult_paper"),
        ("training.epochs=0", r"training: epochs.*\(is 0\)"),
        ("rows.nobody.trials=3", r"unknown row 'nobody'"),
        ("profile=nothing", r"unknown profile 'nothing'"),
    ],
)
def test_what_data_method_or_network_do_not_offer_is_refused(
    study_file: Path, tmp_path: Path, change: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        rows_of(study_file, tmp_path, change)


def test_a_file_that_is_no_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("title = 'x'\nrows = [")
    with pytest.raises(UserError, match=r"broken.toml: not a TOML file"):
        load_study(path)


def test_budgets_paths_and_the_machine_are_not_part_of_what_a_row_is(study_file: Path, tmp_path: Path) -> None:
    row = rows_of(study_file, tmp_path)["crd"]
    changes = ["defaults.trials=50", "defaults.seeds=9", "rows.crd.label='another name'"]
    more = rows_of(study_file, tmp_path, *changes)["crd"]
    assert more.digest == row.digest
    assert more.directory == row.directory


@pytest.mark.parametrize(
    "change",
    [
        "rows.crd.space.beta.high=0.9",
        "rows.crd.space.beta=0.5",
        "rows.crd.settings.rows=3",
        "defaults.sampler=tpe",
        "defaults.selection=accuracy",
        "defaults.pairing=complete",
        "training.epochs=4",
        "teacher_training.epochs=4",
        "teacher.width=16",
        "student.layers=1",
        "primary=audio",
    ],
)
def test_what_decides_the_numbers_makes_another_row(study_file: Path, tmp_path: Path, change: str) -> None:
    assert rows_of(study_file, tmp_path, change)["crd"].digest != rows_of(study_file, tmp_path)["crd"].digest


def test_the_row_without_kd_does_not_depend_on_the_teacher(study_file: Path, tmp_path: Path) -> None:
    ours = rows_of(study_file, tmp_path)["no_kd"]
    assert rows_of(study_file, tmp_path, "teacher.width=16", "teacher_training.epochs=9")["no_kd"].digest == ours.digest
    assert ours.config({"learning_rate": 1e-3}, seed=0).teacher is None
    assert ours.config({"learning_rate": 1e-3}, seed=0).distillation.alpha == 1


def test_only_final_runs_and_their_teachers_read_test(study_file: Path, tmp_path: Path) -> None:
    row = rows_of(study_file, tmp_path)["crd"]
    parameters = row.default()
    tuning, final = row.config(parameters, seed=0), row.config(parameters, seed=1)
    assert tuning.teacher is not None
    assert final.teacher is not None
    assert (tuning.evaluate_test, tuning.teacher.evaluate_test, tuning.teacher.seed) == (False, False, 0)
    assert (final.evaluate_test, final.teacher.evaluate_test, final.teacher.seed) == (True, True, 1)


def test_the_default_trial_is_the_documented_one_within_its_range(study_file: Path, tmp_path: Path) -> None:
    row = rows_of(study_file, tmp_path, "rows.crd.space.alpha={low=0.0, high=0.4}")["crd"]
    assert row.default() == {"learning_rate": 1e-3, "alpha": 0.4, "beta": 1.0, "temperature": 0.07}


def test_differences_name_each_leaf(study_file: Path, tmp_path: Path) -> None:
    ours = rows_of(study_file, tmp_path)["crd"].identity
    theirs = rows_of(study_file, tmp_path, "rows.crd.space.beta.high=0.9")["crd"].identity
    assert differences([ours, theirs]) == {"space.beta.high": [1.0, 0.9]}


def test_the_student_of_pairing_complete_has_the_teachers_network(study_file: Path, tmp_path: Path) -> None:
    rows = rows_of(study_file, tmp_path, "rows.crd.pairing=complete", "teacher.width=16")
    student = rows["crd"].student
    assert student.teacher is not None
    assert student.network == student.teacher.network
    assert rows["no_kd"].student.network.width == 8


def test_places_stand_for_the_datas_modalities(study_file: Path, tmp_path: Path) -> None:
    changes = ["rows.crd.pairing=other1", "rows.crd.group='KD from the {other1} branch'", "primary=audio"]
    row = rows_of(study_file, tmp_path, *changes)["crd"]
    assert row.student.teacher is not None
    assert (row.student.pairing, row.student.teacher.branch) == ("video", "video")
    assert row.group == "KD from the video branch"


AGAIN = """
[[rows]]
name = "again"
method = "no_kd"
trials = 2
"""


def test_two_equal_rows_are_refused_unless_one_is_a_control_of_others(study_file: Path, tmp_path: Path) -> None:
    study_file.write_text(study_file.read_text() + AGAIN)
    with pytest.raises(UserError, match="rows no_kd and again are the same, but for label and budget"):
        rows_of(study_file, tmp_path)
    rows = rows_of(study_file, tmp_path, "rows.crd.control=again")
    assert list(rows) == ["no_kd", "crd"]
    assert rows["crd"].control == "no_kd"
