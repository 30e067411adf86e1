"""No command replaces a file unless --force is given, whatever kind of file it is; and it says so before any work."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusals import Refusals, run, tree

import mmkd.data.__main__ as data
from analysis.__main__ import main as analyse
from mmkd import export, predict

Main = Callable[[list[str]], int]

ANALYSES = {
    "table.csv": ["table"],
    "table.json": ["table", "--format", "json"],
    "compare.json": ["compare", "kd", "kd"],
    "efficiency.md": ["efficiency", "--seconds", "0.01"],
    "missing.tex": ["missing"],
    "report.html": ["report", "--figures"],
}
EXISTS = "exists; choose another name or give --force to replace it"


@pytest.mark.parametrize("name", ANALYSES)
def test_an_analysis_replaces_a_file_by_force_only(refuses: Refusals, small_root: Path, name: str) -> None:
    out = refuses.folder / name
    out.write_text("precious")
    command = [*ANALYSES[name], "--root", small_root, "--no-cache", "--out", out]
    refuses.of(analyse, *command, said=f"--out {out}: {EXISTS}")
    if name.startswith(("table", "report")):  # the others need trained networks
        assert run(analyse, *command, "--force") == 0
        assert "precious" not in out.read_text()


def test_the_refusal_comes_before_the_work(refuses: Refusals) -> None:
    (refuses.folder / "t.csv").touch()
    command = ["table", "--root", refuses.folder / "gone", "--out", refuses.folder / "t.csv"]
    refuses.of(analyse, *command, said=EXISTS)
    refuses.of(analyse, *command, "--force", said="gone: no such directory")


@pytest.mark.parametrize("name", ["efficiency", "missing", "compare"])
def test_the_ending_decides_the_format_of_every_table(refuses: Refusals, small_root: Path, name: str) -> None:
    rows = ["kd", "kd"] if name == "compare" else []
    command = [name, *rows, "--root", small_root, "--no-cache", "--out", refuses.folder / "x.pdf"]
    refuses.of(analyse, *command, said="x.pdf: no format .pdf; there are .*json")


def test_figures_are_replaced_by_force_only(refuses: Refusals, small_root: Path) -> None:
    out = refuses.folder / "figures"
    command = ["figures", "--root", small_root, "--no-cache", "--out", out, "--only", "learning-loss", "confusion"]
    assert run(analyse, *command) == 0
    drawn = tree(out)
    (out / "confusion-kd.pdf").write_text("precious")
    (out / "learning-loss.pdf").unlink()
    refuses.of(analyse, *command, said=f"--out {out}: confusion-kd.pdf: {EXISTS}")
    assert run(analyse, *command, "--force") == 0
    assert tree(out) == drawn


def test_an_export_replaces_neither_a_model_nor_the_file_that_its_card_would_be(
    refuses: Refusals, lab: Any, small_data: Any
) -> None:
    student = lab.run(lab.student(training={"epochs": 1})).path
    readme, model = refuses.folder / "README.md", refuses.folder / "README.pt2"
    readme.write_text("precious")
    command = ["--trial", student, "--out", model]
    refuses.of(export.main, *command, said=f"--out {model}: its model card {readme}: {EXISTS}")
    model.write_text("precious")
    refuses.of(export.main, *command, said=f"--out {model}: {EXISTS}")
    assert run(export.main, *command, "--force") == 0
    assert readme.read_text().startswith("# Student")
    predictions = refuses.folder / "p.csv"
    predictions.write_text("precious")
    command = ["--trial", student, "--data", small_data[0], "--out", predictions]
    refuses.of(predict.main, *command, said=f"--out {predictions}: {EXISTS}")
    assert run(predict.main, *command, "--force") == 0
    with predictions.open() as file:
        assert next(csv.reader(file))[0] == "id"


@pytest.mark.parametrize(
    ("main", "command", "said"),
    [
        (
            export.main,
            ["--trial", "gone", "--out", "model.pth"],
            "--out model.pth: give a name that ends in .pt2 or .onnx",
        ),
        (predict.main, ["--trial", "gone", "--data", "d.h5", "--out", "p.xlsx"], "p.xlsx: give a name .* in .csv"),
        (data.main, ["synthetic", "data.csv"], "data.csv: give a name that ends in .h5 or .hdf5"),
        (analyse, ["report", "--root", "gone", "--out", "r.pdf"], "r.pdf: give a name that ends in .html or .htm"),
    ],
)
def test_an_ending_that_a_command_does_not_write_is_refused(
    refuses: Refusals, monkeypatch: pytest.MonkeyPatch, main: Main, command: list[str], said: str
) -> None:
    monkeypatch.chdir(refuses.folder)
    refuses.of(main, *command, said=said)


def test_a_link_to_nowhere_and_a_device_are_files_too(refuses: Refusals) -> None:
    (refuses.folder / "link.h5").symlink_to("gone.h5")
    refuses.of(data.main, "synthetic", refuses.folder / "link.h5", said=EXISTS)
    refuses.of(analyse, "table", "--out", "/dev/null", said=f"--out /dev/null: {EXISTS}")
