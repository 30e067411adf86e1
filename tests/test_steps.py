"""The steps of a slow command: live on a terminal, now and then a line elsewhere, and never on standard output."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from mmkd import steps
from mmkd.steps import show_steps

SCRIPT = """
from mmkd.steps import show_steps
with show_steps({total}) as tell:
    for name in ("one", "two [bold]"):
        tell(f"drawing {{name}}")
        print(f"wrote {{name}}", flush=True)
"""


def on_a_terminal(total: int | None) -> tuple[str, str]:
    """Standard output, which is a pipe, and standard error, which is a terminal, of `SCRIPT`."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(total=total)], stdout=subprocess.PIPE, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # Linux: the other end is closed
        pass
    os.close(ours)
    assert process.stdout is not None
    output = process.stdout.read()
    process.stdout.close()
    assert process.wait() == 0
    return output.decode(), shown.decode()


@pytest.mark.parametrize(("total", "bar"), [(2, "1/2"), (None, "0:00:0")])
def test_a_terminal_shows_the_step_and_standard_output_stays_a_pipes(total: int | None, bar: str) -> None:
    output, shown = on_a_terminal(total)
    assert output == "wrote one\nwrote two [bold]\n"
    assert "drawing two [bold]" in shown
    assert bar in shown


def test_a_pipe_gets_no_line_of_a_quick_command(capsys: pytest.CaptureFixture[str]) -> None:
    with show_steps() as tell:
        tell("quick")
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_lines_of_a_slow_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(steps, "PIPED_SECONDS", 0.0)
    with show_steps(2) as tell:
        tell("one\x1b[2J")
        tell("two")
    assert capsys.readouterr() == ("", "one\\u001b[2J\ntwo\n")
