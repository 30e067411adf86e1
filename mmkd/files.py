"""Write files by rename, so that readers never see them half-written."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmkd.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk and rename it to `path`.

    A reader sees the old file or the new one, never a part; after a failure or a kill the old one remains. The
    temporary name is unpredictable and starts with `.tmp-`, see `remove_leftovers`.

    Raises:
        OSError: the disk's error (full, read-only), naming `path`; the temporary file is removed.
    """
    temporary = path.with_name(f".tmp-{secrets.token_hex(6)}-{path.name}")
    try:
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from None
    except RuntimeError as error:
        found = re.search(r"errno = (\d+)", str(error))  # HDF5 could not close a file: the disk is full
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, see `write_atomically`."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON to `path`, see `write_atomically`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any | None:
    """Read the value in `path`; None if there is no such file or it holds no complete JSON value."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def check_output(path: Path, subject: str, endings: Sequence[str] = (), *, force: bool | None = None) -> None:
    """Check before any work that a command may write its output to `path`. No command replaces a file by itself.

    Args:
        path: the file to write.
        subject: begins the message, as in `--out table.csv`.
        endings: those that the file's name may have; none given: any.
        force: --force was given, so that a file may be replaced; None: the command has no such option.

    Raises:
        UserError: the name has another ending, its directory does not exist, or there is something at `path`.
    """
    if endings and not path.name.endswith(tuple(endings)):
        raise UserError(f"{subject}: give a name that ends in {' or '.join(endings)}")
    if path.is_dir():
        raise UserError(f"{subject}: is a directory; name a file in it")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{subject}: the directory {path.parent} does not exist; make it first")
    if os.path.lexists(path) and not force:
        remedy = "choose another name" if force is None else "choose another name or give --force to replace it"
        raise UserError(f"{subject}: exists; {remedy}")


def last_lines(path: Path, size: int) -> list[bytes]:
    """The lines in the last `size` bytes of a file, without the first if it is cut there and not the only one.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with path.open("rb") as file:
        start = max(os.fstat(file.fileno()).st_size - size, 0)
        file.seek(start)
        lines = file.read().split(b"\n")
    return lines[1:] if start and len(lines) > 1 else lines


def remove_leftovers(directory: Path, name: str = "*") -> None:
    """Delete what a killed `write_atomically` of `name` left in `directory`; only the writer of `name` may."""
    for leftover in directory.glob(f".tmp-*-{name}"):
        leftover.unlink(missing_ok=True)
