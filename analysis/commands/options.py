"""Options and output that several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mmkd.command import add_force, study_name
from mmkd.errors import UserError
from mmkd.files import check_output, write_text
from mmkd.steps import show_steps
from mmkd.terminal import printable

if TYPE_CHECKING:
    from analysis.loading.runs import Runs

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""The value of `add_subparsers`; argparse has no public name for its type."""


def new_command(
    subparsers: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], int],
    formats: Collection[str] = (),
    *,
    study: bool = True,
    help: str,
    description: str | None = None,
) -> argparse.ArgumentParser:
    """Add a subcommand with --root and --no-cache; by default --study; --format, --out and --force if `formats`."""
    parser = subparsers.add_parser(name, help=help, description=description)
    parser.add_argument(
        "--root", type=Path, default=Path("runs"), help="directory of all results (default: ./%(default)s)"
    )
    if study:
        parser.add_argument(
            "--study",
            type=study_name,
            metavar="NAME",
            help="a name in ROOT/studies/*.json; may be omitted if the root has only one study",
        )
    if formats:
        names = "tex is LaTeX, md is Markdown; " if "tex" in formats else ""
        parser.add_argument("--format", choices=tuple(formats), help=f"{names}default: by the ending of --out, or txt")
        parser.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
        add_force(parser)
    parser.add_argument(
        "--no-cache", action="store_false", dest="cache", help="neither read nor write ROOT/rows/*/finished.jsonl"
    )
    parser.set_defaults(run=run, summary=help)
    return parser


def load_root(options: argparse.Namespace) -> Runs:
    """Load --root, showing the steps.

    Raises:
        UserError: there is nothing to load.
    """
    from analysis.loading.runs import load

    with show_steps() as tell:
        return load(options.root, cache=options.cache, tell=tell)


def load_study(options: argparse.Namespace) -> tuple[Runs, str]:
    """Load --root; return it and the name of the study that --study names, or of the only one.

    Raises:
        UserError: there is nothing to load; or no study is named, and there is none, or there are several.
    """
    return load_root(options), only_study(options)


def only_study(options: argparse.Namespace) -> str:
    """The name of the study that --study names, or of the only one under --root.

    Raises:
        UserError: no study is named, and there is none, or there are several.
    """
    from mmkd.records import study_names

    if options.study is not None:
        return str(options.study)
    names = study_names(options.root)
    if len(names) == 1:
        return names[0]
    if not names:
        raise UserError(f"{options.root}/studies: no study here")
    raise UserError(f"{options.root}: there are several studies, choose one by --study ({', '.join(names)})")


def tell_measured(what: str) -> None:
    """Print on standard error the next measurement: plain lines, since a moving display would disturb it."""
    print(printable(f"measuring {what}"), file=sys.stderr, flush=True)


def output_format(options: argparse.Namespace, formats: Collection[str]) -> str:
    """Check --out before minutes of work, and return the format: --format, else as --out ends, else txt.

    Raises:
        UserError: the file cannot be written, see `check_output`, or its ending is no format.
    """
    ending = options.out.suffix[1:] if options.out else ""
    if options.format is None and ending and ending not in formats:
        raise UserError(f"--out {options.out}: no format .{ending}; there are {', '.join(formats)}, or give --format")
    if options.out is not None:
        check_output(options.out, f"--out {options.out}", force=options.force)
    return str(options.format or ending or "txt")


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
