"""The command: `python -m analysis table --root runs`."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from analysis.loading import load
from analysis.records import study_names
from analysis.rendering import FORMATS, to_text
from analysis.tables import table
from mmkd.errors import UserError
from mmkd.files import write_text


def main(arguments: list[str] | None = None) -> int:
    """Print or write a study's table; the exit code, 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description="Tables from what launched studies left.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("table", help="a study's ablation table")
    command.add_argument("--root", type=Path, default=Path("runs"), help="where the studies lie (default: %(default)s)")
    command.add_argument("--study", metavar="NAME", help="which one; may be left out where there is one only")
    command.add_argument("--format", choices=FORMATS, default="txt", help="default: %(default)s")
    command.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    options = parser.parse_args(arguments)
    try:
        write_table(options.root, options.study, options.format, options.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write_table(root: Path, study: str | None, style: str, out: Path | None) -> None:
    """Write a study's table to `out`, or to standard output: there as wide as the terminal.

    Raises:
        UserError: root, study or folder of `out` do not exist, or the study is not named and there are several.
    """
    runs = load(root)
    made = table(runs, study or only_study(root))
    if out is None and style == "txt" and sys.stdout.isatty():
        text = to_text(made, shutil.get_terminal_size().columns)
    else:
        text = FORMATS[style](made)
    if out is None:
        sys.stdout.write(text)
        return
    try:
        write_text(out, text)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}") from None


def only_study(root: Path) -> str:
    """The name of the one study under `root`.

    Raises:
        UserError: there is none, or there are several.
    """
    names = study_names(root)
    if len(names) == 1:
        return names[0]
    if not names:
        raise UserError(f"{root}/studies: no study here")
    raise UserError(f"{root}: there are several studies, choose one by --study ({', '.join(names)})")


if __name__ == "__main__":
    sys.exit(main())
