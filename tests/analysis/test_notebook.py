"""The notebook in docs/ runs from top to bottom on a study, and is committed without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from roots import Lab

TOUR = Path(__file__).parents[2] / "docs" / "tour.ipynb"


def test_the_tour_runs_on_a_finished_study_and_shows_its_table_and_figures(
    ablation: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMKD_ROOT", str(ablation.path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(TOUR, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.get("data", {}) for output in outputs]
    table = next(data["text/markdown"] for data in shown if "text/markdown" in data)
    assert "CRD on attention maps" in table
    assert "75.0 ± 1.0" in table
    assert sum("image/png" in data for data in shown) == 2
    assert any("CRD on attention maps minus Student without KD" in output.get("text", "") for output in outputs)
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert all(cell.outputs for cell in notebook.cells[2:] if cell.cell_type == "code")


def test_it_is_committed_without_outputs() -> None:
    notebook = nbformat.read(TOUR, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
