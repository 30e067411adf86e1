"""What a teacher is worth without a modality is measured on test, by its own weights, seed by seed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from figure_root import FigureRoot
from trained_root import build_trained

from analysis import load
from analysis.__main__ import main
from analysis.loading.runs import Runs
from analysis.networks.missing_modalities import measure_views, missing, views
from mmkd.config import Network
from mmkd.data import read_split
from mmkd.errors import UserError
from mmkd.training.trained_network import load_network

SMALL = Network(width=8, heads=2, layers=1, fusion_layers=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, str]) -> FigureRoot:
    return build_trained(
        tmp_path_factory.mktemp("missing"),
        small_data,
        none={"method": "no_kd"},
        kd={"method": "kd"},
        several={"method": "no_kd", "pairing": "multimodal", "network": SMALL},
    )


@pytest.fixture(scope="module")
def runs(root: FigureRoot) -> Runs:
    return load(root.path, cache=False)


def test_each_set_of_modalities_is_seen_once() -> None:
    assert views(["a", "b"]) == {"all modalities": ("a", "b"), "without a": ("b",), "without b": ("a",)}
    three = views(["a", "b", "c"])
    assert [*three][1:] == [
        "without a",
        "without b",
        "without c",
        "a alone",
        "b alone",
        "c alone",
    ]
    assert len(set(three.values())) == 7
    assert views(["a"]) == {"all modalities": ("a",)}


def test_a_blank_modality_is_zeros_in_standardised_units(runs: Runs, small_data: tuple[Path, str]) -> None:
    teacher = next(iter(runs.trials["teacher"].dropna()))
    measured = measure_views(runs, [str(teacher)]).set_index("view")
    trained = load_network(runs.root / str(teacher), torch.device("cpu"))
    test = read_split(small_data[0], "test")
    for view, kept in views(("video", "audio", "text")).items():
        x = {m: torch.from_numpy(a * (m in kept)) for m, a in test.arrays.items()}
        right = trained.network(x).logits.argmax(1).numpy() == test.labels
        assert measured.loc[view, "accuracy"] == pytest.approx(right.mean())
    assert (measured["samples"] == len(test)).all()


def test_with_all_modalities_every_network_has_the_score_that_its_run_recorded(runs: Runs) -> None:
    trials = runs.trials.set_index("directory")
    chosen = [str(d) for d in trials.index if "several" in str(d) or str(d).startswith("teachers")]
    assert len(chosen) == 4
    measured = measure_views(runs, chosen)
    for _, line in measured[measured["view"] == "all modalities"].iterrows():
        assert line["accuracy"] == pytest.approx(trials.loc[line["directory"], "test_accuracy"])


def test_the_table_has_teachers_multimodal_students_and_all_rows(runs: Runs) -> None:
    table = missing(runs, "demo")
    assert [section.title for section in table.sections] == ["Teacher", "Row several", "Students, as trained"]
    teacher, several, students = table.sections
    assert len(teacher.rows) == len(several.rows) == 7
    assert [row.label for row in students.rows] == ["Row none", "Row kd", "Row several"]
    trials = runs.trials
    teachers = 100 * trials[trials["kind"] == "teacher"]["test_accuracy"]
    first = teacher.rows[0].cells["accuracy"]
    assert first.value == pytest.approx(teachers.mean())
    assert first.spread == pytest.approx(teachers.std(ddof=1))
    assert (first.n, teacher.rows[0].cells["seeds"].text) == (2, "2")
    own = 100 * trials[trials["row"] == "kd-00000000"]["test_accuracy"]
    assert students.rows[1].cells["accuracy"].value == pytest.approx(np.mean(own))
    assert any("standardised features are zero" in note for note in table.notes)
    assert any("students see video alone, but for those with several" in note for note in table.notes)


@pytest.mark.parametrize("form", ["txt", "csv"])
def test_the_command_writes_it(root: FigureRoot, tmp_path: Path, form: str) -> None:
    out = tmp_path / f"missing.{form}"
    options = ["missing", "--root", str(root.path), "--study", "demo", "--no-cache"]
    assert main([*options, "--format", form, "--out", str(out)]) == 0
    written = out.read_text()
    assert "without audio" in written
    assert "Row kd" in written


def test_a_study_without_a_measured_teacher_is_refused(tmp_path: Path) -> None:
    root = FigureRoot(tmp_path)
    root.row("none", "Student without KD", np.random.default_rng(0))
    root.write()
    with pytest.raises(UserError, match="study demo: no teacher has a score on test yet"):
        missing(load(tmp_path, cache=False), "demo")
