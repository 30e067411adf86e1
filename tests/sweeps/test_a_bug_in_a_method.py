"""An error in a user's method is shown once with file and line, is not retried, and ends the launch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmkd import distillation
from mmkd.attempts import read_attempts
from mmkd.rundir import Root
from sweeps.launch import main

METHOD = """
from mmkd.distillation.base import DistillationMethod


class Method(DistillationMethod):
    tunes = ()

    def forward(self, batch, student, teacher):
        return LOSS
"""
ROWS = """
[[rows]]
name = "mine"
method = "mine"

[[rows]]
name = "mine_slow"
method = "mine"
space = { learning_rate = 0.002 }
"""
LINE = 1 + METHOD[: METHOD.index("return")].count("\n")
LOSSES = {
    "an unknown name": ("undefined", rf"NameError: name 'undefined' is not defined ({{mine}}, line {LINE})"),
    "shapes that do not match": ("student.logits @ student.logits", f"({{mine}}, line {LINE})"),
    "no tensor": ("None", "trainer.py, line "),
}


@pytest.fixture
def method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a method called mine, in a folder of its own."""
    folder = tmp_path / "methods"
    folder.mkdir()
    monkeypatch.setattr(distillation, "__path__", [*distillation.__path__, str(folder)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the file changes within a second
    return folder / "mine.py"


def write(method: Path, loss: str) -> None:
    method.write_text(METHOD.replace("LOSS", loss))
    sys.modules.pop("mmkd.distillation.mine", None)


@pytest.mark.parametrize("case", LOSSES)
def test_it_is_shown_once_and_the_same_command_resumes_when_it_is_fixed(
    study_file: Path, tmp_path: Path, method: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    loss, message = LOSSES[case]
    study_file.write_text(study_file.read_text() + ROWS)
    root = Root(tmp_path / "runs")
    command = ["--study", str(study_file), "--root", str(root.path), "--cluster", "debug", "--device", "cpu"]
    command += ["--trials", "4", "--seeds", "1", "--epochs", "1", "--rows", "mine", "mine_slow"]
    write(method, loss)
    assert main(command) == 1
    said = capsys.readouterr()
    assert said.out.count(message.format(mine=method)) == 1
    assert "mine_slow trial 0: failed like mine trial 0" in said.out
    assert "row mine failed: see mine trial 0: fix the code and run the same command again" in said.err
    for row in root.rows():
        if row.path.name.startswith("mine"):
            (trial,) = row.trials()
            assert [attempt.end for attempt in read_attempts(trial)] == ["bug"]

    write(method, "student.logits.new_zeros(())")
    assert main(command) == 0


def test_a_bug_after_trials_that_completed_ends_its_trial_alone(
    study_file: Path, tmp_path: Path, method: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study_file.write_text(study_file.read_text() + ROWS)
    command = ["--study", str(study_file), "--root", str(tmp_path / "runs"), "--cluster", "debug", "--device", "cpu"]
    command += ["--trials", "2", "--seeds", "1", "--epochs", "1", "--rows", "mine"]
    write(method, "student.logits.new_zeros(())")
    assert main(command) == 0
    write(method, "undefined")
    assert main([*command, "--trials", "3"]) == 1
    assert "1 trial failed (no retries left; --retry failed retries them)" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["CUDA error: an illegal memory access", "can't start new thread"])
def test_trouble_of_the_node_in_a_method_is_retried(study_file: Path, tmp_path: Path, method: Path, words: str) -> None:
    study_file.write_text(study_file.read_text() + ROWS)
    root = Root(tmp_path / "runs")
    command = ["--study", str(study_file), "--root", str(root.path), "--cluster", "debug", "--device", "cpu"]
    write(method, f"(_ for _ in ()).throw(RuntimeError({words!r}))")
    assert main([*command, "--trials", "1", "--seeds", "1", "--epochs", "1", "--rows", "mine"]) == 1
    (row,) = (row for row in root.rows() if row.path.name.startswith("mine"))
    assert [attempt.end for attempt in read_attempts(row.trial(0))] == ["error", "error"]
