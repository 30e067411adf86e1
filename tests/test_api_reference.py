"""The API reference is built from docstrings without a warning, and every public name has an entry."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[1] / "docs" / "build_api.py"
PUBLIC = ("analysis", "analysis.figures", "analysis.loading.runs", "mmkd.data")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("api")
    done = subprocess.run([sys.executable, str(BUILD), str(out)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return out


def page(pages: Path, module: str) -> str:
    return pages.joinpath(*module.split(".")).with_suffix(".html").read_text()


@pytest.mark.parametrize("module", PUBLIC)
def test_every_exported_name_has_an_entry(pages: Path, module: str) -> None:
    for name in importlib.import_module(module).__all__:
        assert f'id="{name}"' in page(pages, module), name


@pytest.mark.parametrize("module", ["mmkd.trial", "mmkd.config", "mmkd.distillation.base", "mmkd.training.trainer"])
def test_modules_of_mmkd_have_pages(pages: Path, module: str) -> None:
    first_words = str(importlib.import_module(module).__doc__)[:20]
    assert first_words in page(pages, module)
