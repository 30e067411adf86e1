"""A root to watch, and a squeue to be told what to say."""

import os
from pathlib import Path

import pytest
from watched_roots import FakeSqueue, WatchedRoot


@pytest.fixture
def watched(tmp_path: Path) -> WatchedRoot:
    return WatchedRoot(tmp_path / "runs")


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSqueue:
    fake = FakeSqueue(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{fake.folder}:{os.environ['PATH']}")
    return fake
