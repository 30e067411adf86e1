"""What every command says to a terminal: text that cannot steer it, and complaints of one line."""

from __future__ import annotations

import argparse
import errno
import re
import sys
from typing import NoReturn

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, what turns the direction of writing, and what no encoding has."""


def printable(text: str) -> str:
    r"""`text`, in which what would steer a terminal (colours, titles, direction of writing) is spelled out: `\u001b`.

    JSON stays JSON and means the same.
    """
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def is_plain(text: str) -> bool:
    """Whether `text` is one line that a terminal may be given as it is, and not empty."""
    return bool(text.strip()) and not re.search(r"[\t\n]", text) and not _STEERING.search(text)


def one_line(text: object) -> str:
    """`text` as one line that a terminal may be given as it is; line breaks become semicolons."""
    return printable("; ".join(line.strip() for line in str(text).splitlines() if line.strip()))


def complain(error: object) -> None:
    """Print why a command ends, in one line on standard error."""
    print(f"error: {one_line(error)}", file=sys.stderr, flush=True)


def exit_code(error: OSError) -> int:
    """2 where the user named a place that cannot be used, 1 where the system failed meanwhile (a full disk)."""
    return 2 if error.errno in _WRONG_PLACE else 1


_WRONG_PLACE = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EROFS, errno.ELOOP,
    errno.ENAMETOOLONG,
}  # fmt: skip


def forgive_encoding() -> None:
    """Let standard output show `?` for what its encoding lacks, instead of failing at it."""
    if hasattr(sys.stdout, "reconfigure"):  # not where a test or a notebook has put something else in its place
        sys.stdout.reconfigure(errors="replace")


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line too: argparse prints the usage before it, which may fill the screen."""

    def error(self, message: str) -> NoReturn:
        """Complain and end with exit code 2."""
        complain(f"{message}; see {self.prog} --help")
        raise SystemExit(2)


def count(text: str) -> int:
    """A whole number from 1 on, as the type of an option.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 999999999")
    return int(text)
