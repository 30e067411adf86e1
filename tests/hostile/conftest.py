"""Refusals, and a small root to spoil."""

from pathlib import Path

import pytest
from refusals import Refusals
from small_root import make_small_root


@pytest.fixture
def refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refusals:
    monkeypatch.setattr("mmkd.steps.PIPED_SECONDS", float("inf"))  # a busy machine would print steps before the error
    return Refusals(tmp_path, capsys)


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    """A study called demo of one row, `kd`: a tuning trial and two confirming runs, with made-up numbers."""
    return make_small_root(tmp_path / "runs")
