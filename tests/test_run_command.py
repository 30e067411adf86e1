"""All commands end alike: one line on standard error and an exit code, whatever went wrong."""

from __future__ import annotations

import argparse
import errno
import subprocess
import sys
from collections.abc import Callable

import pytest

from mmkd.command import Parser, run_command
from mmkd.errors import UserError
from mmkd.lock import LockLost


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(_: argparse.Namespace) -> int:
        raise error

    return run


ADVICE = "; when that is fixed, run the same command again to resume"

ERRORS: dict[str, tuple[BaseException, int, str, int, str]] = {
    "a user's mistake": (UserError("a.toml: no"), 2, "a.toml: no", 2, "a.toml: no"),
    "a path that cannot be used": (
        PermissionError(errno.EACCES, "no", "/x"),
        *(2, "/x: Permission denied"),
        *(1, "/x: Permission denied" + ADVICE),
    ),
    "a full disk in HDF5's words": (
        OSError(errno.ENOSPC, "can't write data\nfile write failed", "/x"),
        *(1, "/x: No space left on device"),
        *(1, "/x: No space left on device" + ADVICE),
    ),
    "a scheduler that is down": (ConnectionError("Slurm is down"), 1, "Slurm is down", 1, "Slurm is down" + ADVICE),
    "a lost lock": (LockLost("row is no longer ours"), 1, "row is no longer ours", 1, "row is no longer ours" + ADVICE),
    "two lines": (UserError("one\ntwo\x1b[2J"), 2, "one; two\\u001b[2J", 2, "one; two\\u001b[2J"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_expected_error_is_one_line_and_an_exit_code(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    error, code, said, resumable_code, resumable_said = ERRORS[case]
    assert run_command(Parser(), raising(error), []) == code
    assert capsys.readouterr().err == f"error: {said}\n"
    assert run_command(Parser(), raising(error), [], resumable=True) == resumable_code
    assert capsys.readouterr().err == f"error: {resumable_said}\n"


def test_ctrl_c_says_nothing_and_ends_with_130_or_as_the_command_wants(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(Parser(), raising(KeyboardInterrupt()), []) == 130
    assert run_command(Parser(), raising(KeyboardInterrupt()), [], interrupted=0) == 0
    assert capsys.readouterr() == ("", "")


def test_an_unexpected_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(Parser(), raising(ZeroDivisionError()), [])


def test_the_exit_code_of_the_command_is_returned() -> None:
    parser = Parser()
    parser.add_argument("--code", type=int)
    assert run_command(parser, lambda options: int(options.code), ["--code", "3"]) == 3


def test_a_reader_that_closed_the_pipe_ends_the_command_without_a_word() -> None:
    script = (
        "import sys; from mmkd.command import Parser, run_command\n"
        "def run(options):\n    print('x' * 100_000, flush=True)\n    return 0\n"
        "sys.exit(run_command(Parser(), run, []))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == b""
    process.stderr.close()
