"""`mmkd`: one list of commands, each answering as the older command lines do."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from analysis.__main__ import COMMANDS
from mmkd.__main__ import all_commands, main

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "pandas", "numpy", "scipy", "matplotlib", "optuna", "submitit", "h5py", "jinja2", "rich", "pydantic"}


def names() -> list[str]:
    return [name for commands in all_commands().values() for name in commands]


def test_help_has_one_line_per_command_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for group, commands in all_commands().items():
        at = lines.index(f"{group}:")
        assert [line.split()[0] for line in lines[at + 1 : at + 1 + len(commands)]] == list(commands)
    assert max(map(len, lines)) <= 120


def test_no_command_prints_the_help_as_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: " in capsys.readouterr().err


def test_every_subcommand_of_analysis_is_a_command() -> None:
    assert set(COMMANDS) < set(names())
    assert len(names()) == len(set(names()))


def test_help_imports_nothing_that_is_slow() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "mmkd", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "mmkd" in imported
    assert not imported & (HEAVY | {"sweeps", "slurm"})


@pytest.mark.parametrize("name", names())
def test_a_usage_line_shows_the_command_as_it_was_called(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mmkd"])
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: mmkd {'launch' if name == 'status' else name} ")
    assert "%(prog)s" not in said


def test_status_is_launch_with_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--study", "crd_attention", "--root", str(tmp_path)]
    assert main(["status", *options]) == 2
    ours = capsys.readouterr().err
    assert import_module("sweeps.launch").main([*options, "--status"]) == 2
    assert capsys.readouterr().err == ours


def test_a_misspelt_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tabel"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: unknown command 'tabel'; did you mean table? (choices: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", [["-m", "mmkd", "launch"], ["sweeps/launch.py"]], ids=str)
def test_the_older_command_lines_give_the_same(command: list[str]) -> None:
    done = subprocess.run([sys.executable, *command, "--list"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "table1" in done.stdout
    assert done.stderr == ""
