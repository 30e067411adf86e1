"""The command line that all commands share: parser, option types, and the one wrapper of every `main`."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from mmkd.errors import UserError
from mmkd.lock import LockLost
from mmkd.terminal import forgive_encoding, one_line


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line: argparse prints the usage before it, which may fill the screen."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with code 2."""
        print_error(f"{message}; see {self.prog} --help")
        raise SystemExit(2)


def positive_integer(text: str) -> int:
    """Type of an option: a whole number from 1 on.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 999999999")
    return int(text)


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add --force, see `mmkd.files.check_output`."""
    parser.add_argument("--force", action="store_true", help="replace existing files of these names")


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
    arguments: Sequence[str] | None,
    *,
    resumable: bool = False,
    interrupted: int = 130,
) -> int:
    """Parse `arguments` and run a command; turn every expected exception into one line on standard error.

    Args:
        parser: the command's.
        run: takes the parsed options and returns the exit code.
        arguments: None: those of the process.
        resumable: after a system failure the same command resumes; the message says so, and the exit code is 1.
        interrupted: exit code after Ctrl-C.

    Returns:
        The exit code: that of `run`; 2 for a user's mistake; 1 for a system failure or a reader that closed the pipe.
    """
    options = parser.parse_args(arguments)
    forgive_encoding()
    try:
        return run(options)
    except UserError as error:
        print_error(error)
        return 2
    except KeyboardInterrupt:
        return interrupted
    except BrokenPipeError:
        # The reader of our output has gone (head, less): there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, LockLost) as error:
        advice = "; when that is fixed, run the same command again to resume" if resumable else ""
        print_error(_describe(error) + advice)
        return exit_code(error) if isinstance(error, OSError) and not resumable else 1


def print_error(error: object) -> None:
    """Print in one line on standard error why a command ends."""
    print(f"error: {one_line(error)}", file=sys.stderr, flush=True)


def exit_code(error: OSError) -> int:
    """2 if the user named a path that cannot be used, 1 if the system failed (a full disk)."""
    return 2 if error.errno in _WRONG_PATH else 1


_WRONG_PATH = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EROFS, errno.ELOOP,
    errno.ENAMETOOLONG,
}  # fmt: skip


def _describe(error: OSError | LockLost) -> str:
    """The path first, then the system's reason: HDF5's own has many lines."""
    if isinstance(error, OSError) and error.filename is not None and error.errno is not None:
        return f"{error.filename}: {os.strerror(error.errno)}"
    return str(error)
