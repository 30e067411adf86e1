"""The example of docs/adding-a-method.md, as a reader would follow it."""

import re
from pathlib import Path
from typing import Any

import pytest

from mmkd import distillation
from mmkd.result_file import Status, read_result
from sweeps.launch import main
from sweeps.study_file import load_study

GUIDE = Path(__file__).parents[2] / "docs" / "adding-a-method.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def test_one_new_file_and_one_study_file_make_a_method(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hint.py").write_text(blocks("python")[0])
    monkeypatch.setattr(distillation, "__path__", [*distillation.__path__, str(tmp_path)])
    study = tmp_path / "hint.toml"
    study.write_text(blocks("toml")[0])
    assert [row.method for row in load_study(study).rows] == ["no_kd", "hint"]
    root = tmp_path / "runs"
    where = ["--study", str(study), "--data", str(lab.data), "--root", str(root), "--cluster", "debug"]
    budget = ["--trials", "1", "--seeds", "1", "--epochs", "1", "--device", "cpu"]
    small = ["teacher.width=8", "teacher.heads=2", "student.width=8", "student.heads=2"]
    assert main([*where, *budget, *(f"--set={change}" for change in small)]) == 0
    results = [read_result(path) for path in root.glob("rows/hint-*/*/*/result.h5")]
    assert [result.status for result in results] == [Status.COMPLETE] * 2
    assert all(result.curves["train_distillation"][0] > 0 for result in results)


def test_a_row_loss_alone_makes_a_method_on_maps(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "total_variation.py").write_text(blocks("python")[1])
    monkeypatch.setattr(distillation, "__path__", [*distillation.__path__, str(tmp_path)])
    result = read_result(lab.run(lab.student("total_variation")).result)
    assert result.status is Status.COMPLETE
    assert all(0 < loss < 1 for loss in result.curves["train_distillation"])
