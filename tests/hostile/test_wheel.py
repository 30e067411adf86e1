"""The wheel, installed in an environment of its own and run outside the clone, beside packages of the same names."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import rich
from small_root import make_small_root

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
OFFLINE = ["--quiet", "--no-index", "--no-deps"]

pytestmark = pytest.mark.skipif(find_spec("hatchling") is None, reason="needs hatchling, to build the wheel offline")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([*PIP, "wheel", *OFFLINE, "--no-build-isolation", "-w", folder, ROOT], check=True)
    (built,) = folder.glob("mmkd-*.whl")
    return built


def environment(folder: Path, *wheels: Path) -> Path:
    """The `bin` of a new environment with these wheels, which takes the dependencies from the present one."""
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(str(Path(rich.__file__).parents[1]))
    for wheel in wheels:
        subprocess.run([*PIP, "--python", folder / "bin" / "python", "install", *OFFLINE, wheel], check=True)
    return folder / "bin"


def foreign_sweeps(folder: Path) -> Path:
    """A wheel of another distribution whose package is named `sweeps`, as the one on PyPI."""
    path = folder / "sweeps-0.2.0-py3-none-any.whl"
    info = "sweeps-0.2.0.dist-info"
    files = {
        "sweeps/__init__.py": "from sweeps.bayes_search import bayes_search_next_run\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: sweeps\nVersion: 0.2.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def run(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, without the clone on the path."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return subprocess.run([*map(str, command)], cwd=folder, env=clean, capture_output=True, text=True, check=False)


def test_the_command_works_where_other_packages_have_the_names_of_its_own(wheel: Path, tmp_path: Path) -> None:
    bin_ = environment(tmp_path / "env", wheel)
    folder = tmp_path / "work"
    for package in ("analysis", "sweeps", "slurm"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("raise RuntimeError('the user's own')\n")
    make_small_root(folder / "runs")
    for program in ([bin_ / "mmkd"], [bin_ / "python", "-m", "mmkd"]):
        listed = run(folder, *program, "launch", "--list")
        assert "table1" in listed.stdout, listed
        table = run(folder, *program, "table", "--no-cache")
        assert "Hinton's KD" in table.stdout, table
        assert (table.returncode, table.stderr) == (0, "")
        assert run(folder, *program, "monitor", "--once").returncode == 0
        assert "demo" in run(folder, *program, "status", "--study", "demo").stdout


def test_a_foreign_package_installed_over_ours_is_named_with_the_remedy(wheel: Path, tmp_path: Path) -> None:
    bin_ = environment(tmp_path / "env", wheel, foreign_sweeps(tmp_path))
    done = run(tmp_path, bin_ / "mmkd", "launch", "--list")
    assert done.returncode == 2
    assert (
        "site-packages/sweeps/__init__.py: expected mmkd's package 'sweeps', found files of sweeps 0.2.0" in done.stderr
    )
    assert "pip uninstall sweeps, then reinstall mmkd" in done.stderr
    assert done.stderr.count("\n") == 1
    assert run(tmp_path, bin_ / "mmkd", "table", "--help").returncode == 0
