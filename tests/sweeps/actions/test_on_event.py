"""A command that a user runs on events of a study."""

import json
import sys
import time
from pathlib import Path

import pytest

from mmkd.errors import UserError
from mmkd.terminal import one_line
from sweeps.actions.on_event import Notifier
from sweeps.controller.stopping import Halted
from sweeps.launch import main

HOSTILE = 'it\'s "$(touch pwned)" `id`; {study} {event} \\ \n* %s'


@pytest.fixture
def told(tmp_path: Path):
    """A command that notes its words and its standard input, and what it has noted."""
    path = tmp_path / "told.jsonl"
    program = tmp_path / "note.py"
    program.write_text(
        f"import json, sys\nopen({str(path)!r}, 'a').write(json.dumps([sys.argv[1:], input()]) + '\\n')\n"
    )
    command = f"{sys.executable} {program} '{{event}}: {{study}}' --text={{message}}"
    return command, lambda: [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_fields_are_replaced_in_words_and_nothing_in_a_message_is_a_command(told, tmp_path: Path) -> None:
    command, notes = told
    Notifier(command, "kd")("failed", HOSTILE)
    ((words, heard),) = notes()
    assert words == ["failed: kd", f"--text={one_line(HOSTILE)}"]
    assert heard == one_line(HOSTILE)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("command", ["/no/such/command", f"{sys.executable} -c 'import sys; sys.exit(\"no mail\")'"])
def test_a_command_that_fails_does_no_harm(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    Notifier(command, "kd")("ended", "all rows are done")
    assert "warning: --on-event" in capsys.readouterr().err


def test_a_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sweeps.actions.on_event.SECONDS", 0.2)
    began = time.monotonic()
    Notifier("sleep 60", "kd")("ended", "all rows are done")
    assert time.monotonic() - began < 10
    assert "timed out" in capsys.readouterr().err


def test_without_a_command_nothing_happens_and_a_wrong_one_is_refused() -> None:
    Notifier(None, "kd")("ended", "")
    for command in ("mail 'open", "  "):
        with pytest.raises(UserError, match="--on-event"):
            Notifier(command, "kd")


def test_a_launch_tells_of_its_end_and_if_a_person_has_to_act(
    told, study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, notes = told
    (tmp_path / "site.toml").write_text(f"on_event = {json.dumps(command)}\n")
    common = ["--study", str(study_file), "--root", str(tmp_path / "runs"), "--cluster", "debug", "--device", "cpu"]
    common += ["--site", str(tmp_path / "site.toml"), "--trials", "1", "--seeds", "1", "--epochs", "1"]
    monkeypatch.setattr("sweeps.launch.control", lambda *_: False)
    for code, event in ((0, "ended"), (1, "failed"), (3, "attention")):
        monkeypatch.setattr("sweeps.launch.conclude", lambda *_, code=code, **__: code)
        assert main([*common, "--rows", "no_kd"]) == code
        assert notes()[-1][0][0] == f"{event}: tiny"

    def halt(*_: object) -> bool:
        raise Halted("every node is bad")

    monkeypatch.setattr("sweeps.launch.control", halt)
    assert main([*common, "--rows", "no_kd"]) == 1
    assert notes()[-1] == [["attention: tiny", "--text=every node is bad"], "every node is bad"]
