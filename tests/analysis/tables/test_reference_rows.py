"""A table shows reference models, fits them once, and warns of networks that do not beat them."""

import shutil
from pathlib import Path

import pytest
from trained_root import build_trained

from analysis import load, table, to_csv
from analysis.stats import linear_model, references
from analysis.tables.model import Table
from mmkd.files import read_json, write_json
from mmkd.rundir import Root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, str]) -> Path:
    """Networks of two epochs, which learn nothing."""
    folder = tmp_path_factory.mktemp("trained")
    path = build_trained(folder, small_data, none={"method": "no_kd"}, kd={"method": "kd"}).path
    for row in Root(path).rows():
        record = read_json(row.row)
        assert record is not None
        record["data"] |= {"path": str(small_data[0]), "fingerprint": small_data[1]}
        record["data"]["modalities"] = ["video", "audio", "text"]
        record["identity"]["data"] = small_data[1]
        write_json(row.row, record)
    return path


def made(root: Path) -> Table:
    return table(load(root, cache=False), next(iter(load(root, cache=False).studies["study"])))


def test_references_of_students_and_teachers_are_rows_of_their_own(trained: Path) -> None:
    result = made(trained)
    lines = {row.name: row for row in result.rows if row.kind == "reference"}
    assert list(lines) == ["majority", "linear video", "linear video + audio + text"]
    kept = [read_json(path) for path in sorted((trained / "references").iterdir())]
    stored = {tuple(found["modalities"]): found for found in kept if found is not None}
    assert lines["linear video"].cells["accuracy"].value == pytest.approx(100 * stored["video",]["test"]["accuracy"])
    assert lines["majority"].cells["macro_f1"].value == pytest.approx(100 * stored["video",]["majority"]["macro_f1"])
    assert all(row.cells["accuracy"].rank is None and not row.cells["accuracy"].mark for row in lines.values())
    assert "reference," in to_csv(result)
    assert any(note.startswith("linear model: scikit-learn's logistic regression (C = 1,") for note in result.notes)


def test_networks_that_do_not_beat_them_are_named(trained: Path) -> None:
    warnings = [text for text in made(trained).warnings if text.startswith("not better than")]
    lines = {row.name: row.cells["accuracy"] for row in made(trained).rows}
    below = [name for name in ("none", "kd") if lines[name].value <= lines["linear video"].value]  # type: ignore[operator]
    assert below
    assert any("of the same modalities (video:" in text and "Row none" in text for text in warnings)
    assert any("(video + audio + text:" in text and "Teacher" in text for text in warnings)


def test_they_are_fitted_once(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = made(trained)

    def again(*arguments: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(linear_model, "fit_references", again)
    assert made(trained) == before


def test_without_its_data_a_table_says_so(trained: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(trained, root)
    shutil.rmtree(root / "references", ignore_errors=True)
    for path in root.glob("rows/*/*/*/config.json"):
        config = read_json(path)
        assert config is not None
        config["data"]["path"] = "/nowhere/d.h5"
        write_json(path, config)
    for row in Root(root).rows():
        record = read_json(row.row)
        assert record is not None
        record["data"]["path"] = "/nowhere/d.h5"
        write_json(row.row, record)
    result = made(root)
    assert not [row for row in result.rows if row.kind == "reference"]
    problem = next(note for note in result.notes if note.startswith("no reference models: d.h5"))
    assert "/nowhere" not in problem


def test_a_root_that_cannot_be_written_has_references_too(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(trained / "references", ignore_errors=True)

    def refused(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as context:
        context.setattr(references, "write_record", refused)
        assert any(row.name == "majority" for row in made(trained).rows)
