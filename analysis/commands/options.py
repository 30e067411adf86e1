"""Options and output that several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from mmkd.errors import UserError
from mmkd.files import write_text
from mmkd.terminal import printable

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `add_subparsers` gives; argparse has no public name for it."""


def add_root(parser: argparse.ArgumentParser) -> None:
    """Add --root."""
    parser.add_argument(
        "--root", type=Path, default=Path("runs"), help="where the launched studies lie (default: %(default)s)"
    )


def add_study(parser: argparse.ArgumentParser) -> None:
    """Add --study."""
    parser.add_argument("--study", metavar="NAME", help="which one; may be left out where there is one only")


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add --no-cache."""
    parser.add_argument(
        "--no-cache", action="store_false", dest="cache", help="neither read nor write ROOT/.cache/analysis.h5"
    )


def add_output(parser: argparse.ArgumentParser, formats: Iterable[str]) -> None:
    """Add --format, by default text, and --out."""
    parser.add_argument("--format", choices=tuple(formats), default="txt", help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")


def chosen_study(root: Path, name: str | None) -> str:
    """`name`, or where it is None the name of the one study under `root`.

    Raises:
        UserError: none is named, and there is no study, or there are several.
    """
    from mmkd.records import study_names

    if name is not None:
        return name
    names = study_names(root)
    if len(names) == 1:
        return names[0]
    if not names:
        raise UserError(f"{root}/studies: no study here")
    raise UserError(f"{root}: there are several studies, choose one by --study ({', '.join(names)})")


def tell(what: str) -> None:
    """Say on standard error what is being done, for it may take minutes."""
    print(printable(what), file=sys.stderr, flush=True)


def check_out(out: Path | None) -> None:
    """Make sure, before minutes of work, that the file `out` can be written, as far as that can be told.

    Raises:
        UserError: its folder is not there, or it is a folder itself.
    """
    if out is not None and not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: No such file or directory; make its folder first")
    if out is not None and out.is_dir():
        raise UserError(f"--out {out}: Is a directory; name a file in it")


def write_out(text: str, out: Path | None) -> None:
    """Write `text` to the file `out`, whole, or to standard output.

    Raises:
        UserError: the file cannot be written.
    """
    if out is None:
        sys.stdout.write(printable(text))
        return
    try:
        write_text(out, text)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from None
