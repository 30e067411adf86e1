"""--help and --list import nothing that is slow."""

import subprocess
import sys

import pytest

from analysis.__main__ import COMMANDS

ROOT = __file__.partition("/tests/")[0]
HEAVY = {"torch", "pandas", "numpy", "scipy", "matplotlib", "optuna", "submitit", "h5py", "jinja2", "rich"}


def imported(*command: str) -> set[str]:
    """The top-level packages that a command imports, as -X importtime lists them."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=str)
def test_help_of_analysis(command: tuple[str, ...]) -> None:
    found = imported("-m", "analysis", *command, "--help")
    assert "analysis" in found
    assert not found & (HEAVY | {"pydantic", "sweeps"})


@pytest.mark.parametrize("option", ["--help", "--list"])
def test_options_of_launch_that_only_print(option: str) -> None:
    found = imported("sweeps/launch.py", option)
    assert "sweeps" in found
    assert not found & (HEAVY | {"analysis"})
