"""The command: `python -m analysis table --root runs`, and others; each is a module of `analysis.commands`."""

from __future__ import annotations

import sys
from importlib import import_module

from mmkd.command import Parser, run_command

COMMANDS = ("table", "compare", "diff", "doctor", "figures", "efficiency", "missing", "report", "export-runs")
"""Subcommands in the order of --help; each is a module of `analysis.commands` (with `_` for `-`)."""


def make_parser() -> Parser:
    """The parser with all subcommands."""
    parser = Parser(
        prog="python -m analysis", description="Tables, figures and reports from what launched studies left."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"analysis.commands.{name.replace('-', '_')}").add_command(subparsers)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    return run_command(make_parser(), lambda options: int(options.run(options)), arguments)


if __name__ == "__main__":
    sys.exit(main())
