"""The command line that all commands share: parser, option types, and the one wrapper of every `main`."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NoReturn

from mmkd.errors import UserError, did_you_mean
from mmkd.lock import LockLost
from mmkd.terminal import forgive_encoding, one_line

LIKENESS = 0.7
"""Of a suggested option or choice: gpu is not a misspelt cpu."""


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, with the nearest option or choice for a mistyped one.

    Argparse prints the usage before an error, which may fill the screen. `advice` returns the remedy for an argument
    that users expect and that does not exist, "" if it knows none.
    """

    advice: Callable[[str], str] = staticmethod(lambda argument: "")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parse, and refuse unknown arguments: first the options, since a mistyped one may leave a required one out."""
        words = sys.argv[1:] if args is None else list(args)
        if unknown := self._unknown_options(words):
            self._refuse(unknown)
        options, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self._refuse(unknown)
        return options, unknown

    def _unknown_options(self, words: list[str]) -> list[str]:
        """Select the long options that nothing here begins with; where a command follows, those before it."""
        own = takewhile(lambda word: word.startswith("-") if self._subparsers else word != "--", words)
        known = tuple(self._option_string_actions)
        return [w for w in own if w.startswith("--") and not any(o.startswith(w.partition("=")[0]) for o in known)]

    def _refuse(self, unknown: list[str]) -> NoReturn:
        hint = self.advice(unknown[0]) or ("options follow the command" if self._subparsers else "")
        if not hint:
            shown = [name for name, action in self._option_string_actions.items() if action.help != argparse.SUPPRESS]
            name = unknown[0].partition("=")[0].lstrip("-")
            hint = did_you_mean(
                name, [name.lstrip("-") for name in shown if name.startswith("--")], "--", likeness=LIKENESS
            )
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint and '; '}{hint}")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            hint = did_you_mean(str(value), map(str, action.choices or ()), likeness=LIKENESS)
            raise argparse.ArgumentError(action, f"{error.message}{hint and '; '}{hint}") from None

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with code 2."""
        print_error(f"{message}; see {self.prog} --help")
        raise SystemExit(2)


def natural_number(text: str) -> int:
    """Type of an option: a whole number from 0 on.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    return 0 if re.fullmatch(r"0+", text) else positive_integer(text)


def positive_integer(text: str) -> int:
    """Type of an option: a whole number from 1 on.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if re.fullmatch(r"\s*\d+(\s*[, ]\s*\d+)+\s*", text):
        count = len(re.findall(r"\d+", text))
        raise argparse.ArgumentTypeError(f"{text!r} is a list; give a number: {count} for as many as you listed")
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 999999999")
    return int(text)


def study_name(text: str) -> str:
    """Return the name of a study's table: `text`, or the stem of a study file."""
    return os.path.basename(text).removesuffix(".toml") if text.endswith(".toml") else text


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add --force, see `mmkd.files.check_output`."""
    parser.add_argument("--force", action="store_true", help="replace existing files")


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
