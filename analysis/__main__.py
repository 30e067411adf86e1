"""The command: `python -m analysis table --root runs`, and others; each is a module of `analysis.commands`."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from analysis.commands.options import Subparsers
from mmkd.command import Parser, run_command

COMMANDS = (
    "table",
    "compare",
    "diff",
    "plan",
    "power",
    "doctor",
    "figures",
    "efficiency",
    "missing",
    "report",
    "export-runs",
)
"""Subcommands in the order of --help; each is a module of `analysis.commands` (with `_` for `-`)."""


PROG = "python -m analysis"


def make_parser(prog: str = PROG) -> Parser:
    """The parser with all subcommands."""
    parser = Parser(prog=prog, description="Tables, figures and reports of launched studies.")
    add_commands(parser)
    return parser


def add_commands(parser: argparse.ArgumentParser) -> Subparsers:
    """Add all subcommands."""
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"analysis.commands.{name.replace('-', '_')}").add_command(subparsers)
    return subparsers


def summaries() -> dict[str, str]:
    """The line that --help shows for each subcommand; `mmkd --help` shows it too."""
    return {name: parser.get_default("summary") for name, parser in add_commands(Parser()).choices.items()}


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """The command."""
    return run_command(make_parser(prog), lambda options: int(options.run(options)), arguments)


if __name__ == "__main__":
    sys.exit(main())
