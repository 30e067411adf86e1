"""The command: `python -m analysis table --root runs`, and others; each is a module of `analysis.commands`."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from mmkd.errors import UserError
from mmkd.terminal import Parser, complain, exit_code, forgive_encoding

COMMANDS = ("table", "compare", "doctor", "figures", "efficiency", "missing", "report")
"""Modules of `analysis.commands`, in the order in which --help shows them."""


def make_parser() -> Parser:
    """The parser with all subcommands."""
    parser = Parser(
        prog="python -m analysis", description="Tables, figures and reports from what launched studies left."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"analysis.commands.{name}").add_command(subparsers)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; its exit code, 2 for what the user can mend."""
    options = make_parser().parse_args(arguments)
    forgive_encoding()
    try:
        return int(options.run(options))
    except UserError as error:
        complain(error)
        return 2
    except BrokenPipeError:
        # The reader of our output has gone (head, less): there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        complain(error)
        return exit_code(error)


if __name__ == "__main__":
    sys.exit(main())
