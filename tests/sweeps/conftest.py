"""A tiny data set and a study of it."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_study import STUDY, write_tiny_data

from mmkd.failures import RULES


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries after repeated failures begin at once."""
    for failure, rule in RULES.items():
        monkeypatch.setitem(RULES, failure, replace(rule, pause=0.0))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tiny.h5"
    write_tiny_data(path)
    return path


@pytest.fixture
def study_file(tmp_path: Path, tiny_data: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(f'data = "{tiny_data}"\n{STUDY}')
    return path
