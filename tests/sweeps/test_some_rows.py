"""--rows: some rows of a study and its control run and are printed; the record keeps all rows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analysis.__main__ import main as analyse
from mmkd.records import StudyRecord, read_record
from mmkd.rundir import Root
from slurm.monitor import main as monitor
from sweeps.launch import main

THIRD = """
[[rows]]
name = "kd"
method = "kd"
"""


@pytest.fixture
def command(study_file: Path, tmp_path: Path) -> list[str]:
    """The launch of a study of three rows, of which no_kd is the control."""
    study_file.write_text(study_file.read_text() + THIRD)
    where = ["--study", str(study_file), "--root", str(tmp_path / "runs"), "--cluster", "debug", "--device", "cpu"]
    return [*where, "--trials", "1", "--seeds", "1", "--epochs", "1"]


def record(tmp_path: Path) -> StudyRecord:
    return read_record(Root(tmp_path / "runs").study("tiny"), StudyRecord)


def test_the_row_and_the_control_run_and_every_command_copes_with_the_others(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--root", str(tmp_path / "runs")]
    assert main([*command, "--rows", "kd"]) == 0
    said = capsys.readouterr().out
    assert "row       kd" in said
    assert "row       no_kd" in said
    assert "CRD" not in said, "neither in the plan nor in the table"
    assert "rows: 2 of the study's 3" in " ".join(said.split())
    assert [row.name for row in record(tmp_path).rows] == ["no_kd", "crd", "kd"]
    assert not list((tmp_path / "runs" / "rows").glob("crd-*"))

    assert analyse(["table", *root]) == 0
    assert "(not started)" in capsys.readouterr().out
    assert analyse(["table", *root, "--rows", "kd"]) == 0
    assert "CRD" not in capsys.readouterr().out
    analyse(["doctor", *root])
    (found,) = [line for line in capsys.readouterr().out.splitlines() if "CRD" in line]
    assert found.startswith("unfinished: ")
    assert monitor([*root, "--once"]) == 0
    assert "all is done" in " ".join(capsys.readouterr().out.split())

    assert main([*command, "--status"]) == 0
    assert re.search(r"crd +0/1", capsys.readouterr().out)
    assert main([*command, "--status", "--rows", "kd"]) == 0
    assert "crd " not in capsys.readouterr().out


def test_rows_of_an_earlier_launch_keep_their_budget(command: list[str], tmp_path: Path) -> None:
    assert main([*command, "--rows", "no_kd"]) == 0
    assert main([*command, "--rows", "kd", "--trials", "2"]) == 0
    assert {row.name: row.trials for row in record(tmp_path).rows} == {"no_kd": 2, "crd": 1, "kd": 2}
    assert main([*command, "--trials", "2"]) == 0
    assert {row.trials for row in record(tmp_path).rows} == {2}


def test_a_dry_run_of_a_row_shows_it_alone(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--rows", "crd", "no_kd", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "row       crd" in said
    assert "row       kd" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rows", "crdd"], r"unknown row (--rows) 'crdd'; did you mean crd? (choices: crd, kd, no_kd)"),
        (["--rows"], "--rows: expected at least one argument"),
        (["--rows", "kd", "--cancel"], "--rows: --cancel, --clean and --archive act on the whole study; leave --rows"),
        (["--rows", "kd,crd"], "unknown row (--rows) 'kd,crd'"),
    ],
)
def test_a_wrong_use_is_refused(
    command: list[str], capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    try:
        code: object = main([*command, *options])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert said in capsys.readouterr().err
