"""`diff` prints what differs between two rows, or two studies, and nothing that is equal."""

import json
from pathlib import Path
from typing import Any

import pytest
from roots import COMMIT, Lab, finish, student_config

from analysis.__main__ import main

SPACE = {"beta": {"low": 0.0, "high": 1.0}}
NARROW = {"beta": {"low": 0.0, "high": 0.5}}


@pytest.fixture
def root(lab: Lab) -> Lab:
    """Two rows of one method, which differ in a range, in their commits and in their scores."""
    lab.row("crd", [0.74, 0.75, 0.76], label="CRD", method="crd", space=SPACE)
    row = lab.row("narrow", [0.70, 0.71, 0.72], label="CRD, narrow", method="crd", space=NARROW)
    for seed, accuracy in ((1, 0.70), (2, 0.71), (3, 0.72)):
        config = student_config(seed, None, learning_rate=1e-2)
        finish(row.final_run(seed, "abcdef0123"), config, accuracy, commit="b" * 40)
    lab.study()
    return lab


def diff(lab: Lab, *words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["diff", "--root", str(lab.path), *words]) == 0
    return capsys.readouterr().out


def as_json(lab: Lab, *words: str, capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(diff(lab, *words, "--format", "json", capsys=capsys))


def test_two_rows_differ_in_configuration_code_and_results(root: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(root, "crd", "narrow", capsys=capsys)
    assert found["configuration"] == {"space.beta.high": [1.0, 0.5]}
    assert found["winner"] == {}
    commit = ", ".join((COMMIT[:12], "b" * 12))
    assert found["code"] == {"commit": [COMMIT[:12], commit]}
    accuracy = next(result for result in found["results"] if result["metric"] == "accuracy")
    assert (accuracy["a"], accuracy["b"]) == pytest.approx((75, 71))
    assert (accuracy["sd_a"], accuracy["n_a"], accuracy["n_b"]) == (pytest.approx(1.0), 3, 3)
    difference = accuracy["difference"]
    assert difference["value"] == pytest.approx(4)
    assert difference["low"] < 4 < difference["high"]


def test_text_shows_the_key_both_values_and_both_means_with_their_spread(
    root: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [" ".join(line.split()) for line in diff(root, "crd", "narrow", capsys=capsys).splitlines()]
    assert "space.beta.high 1 0.5" in lines
    assert "winner: no difference" in lines
    assert any(line.startswith("accuracy 75.00 ± 1.00 (n = 3) 71.00 ± 1.00 (n = 3) +4.00 [") for line in lines)
    assert not any(line.startswith(("method", "space.beta.low")) for line in lines), "these are equal"


def test_a_row_does_not_differ_from_itself(root: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(root, "crd", "crd", capsys=capsys)
    assert [found[part] for part in ("configuration", "winner", "code")] == [{}, {}, {}]


def test_rows_are_also_found_by_their_directories_in_this_root_and_in_another(
    root: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_name = as_json(root, "crd", "narrow", capsys=capsys)
    row = root.row_of("crd")
    other = Lab(tmp_path / "other")
    other.row("narrow", [0.70, 0.71, 0.72], method="crd", space=NARROW)
    elsewhere = other.row_of("narrow").path
    assert as_json(root, row.path.name, root.row_of("narrow").path.name, capsys=capsys) == by_name
    found = as_json(root, str(row.path), str(elsewhere), capsys=capsys)
    assert found["configuration"] == by_name["configuration"]
    assert found["results"] == by_name["results"]


def test_a_teacher_that_one_row_lacks_is_one_line(root: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = {"branch": None, "network": {"width": 32, "heads": 8}, "training": {"epochs": 2}}
    root.row("taught", [0.8], method="crd", space=SPACE, teacher=teacher)
    root.study()
    text = diff(root, "crd", "taught", capsys=capsys)
    assert "teacher.network" not in text
    assert "yes (--format json lists it)" in text
    assert "teacher.network.heads" in as_json(root, "crd", "taught", capsys=capsys)["configuration"]


def test_two_studies_are_compared_row_by_row(root: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    crd, narrow = root.rows
    root.rows = [{**narrow, "name": "crd"}, {**crd, "name": "wide", "trials": 9}, {**narrow, "trials": 30}]
    root.study("second", control="crd")
    found = as_json(root, "demo", "second", capsys=capsys)
    assert found["settings"]["control"] == [None, "crd"]
    assert found["settings"]["rows.narrow.trials"] == [2, 30]
    assert (found["only_a"], found["only_b"], found["same"]) == ([], ["wide"], ["narrow"])
    assert found["rows"]["crd"]["configuration"] == {"space.beta.high": [1.0, 0.5]}
    text = diff(root, "demo", "second", capsys=capsys)
    assert "only in B: wide" in text
    assert "row crd" in text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("crd", "narow"), "did you mean narrow?"),
        (("crd", "demo"), "'demo' is a study: compare it with another study"),
        (("crd", "narrow", "--study", "dmo"), "did you mean demo?"),
    ],
)
def test_what_is_not_found_is_named(
    words: tuple[str, ...], complaint: str, root: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", "--root", str(root.path), *words]) == 2
    assert complaint in capsys.readouterr().err


def test_a_name_that_two_studies_give_to_different_rows_needs_the_study(
    root: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    root.rows = [{**root.rows[1], "name": "crd"}]
    root.study("second")
    assert main(["diff", "--root", str(root.path), "crd", "narrow"]) == 2
    assert "names several rows: crd-01234567, narrow-01234567; choose one, or give --study" in capsys.readouterr().err
    assert as_json(root, "crd", "narrow", "--study", "demo", capsys=capsys)["configuration"]
