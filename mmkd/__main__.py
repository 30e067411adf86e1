"""The command `mmkd`, also `python -m mmkd`: the list of all commands. A command's module is imported when it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import NamedTuple

from mmkd import __version__
from mmkd.command import print_error
from mmkd.errors import UserError, choose

# The package mmkd imports none of sweeps, slurm and analysis: jobs need mmkd alone, and the import linter checks it.
# This module is where the four packages meet, so it names the others' modules as text and imports the chosen one.

HOME = Path(__file__).parents[1]
"""The directory that contains mmkd, sweeps, slurm and analysis: a clone or site-packages."""
SIBLINGS = ("sweeps", "slurm", "analysis")


class Command(NamedTuple):
    """A command: `main(arguments, prog)` of `module` runs it; `first` are the arguments before the user's.

    `prog` is what a usage line shows after `mmkd`.
    """

    summary: str
    module: str
    prog: str
    first: tuple[str, ...] = ()


RUN, WATCH, ANALYSE, DATA = "run", "watch", "analyse", "data and networks"
COMMANDS: dict[str, dict[str, Command]] = {
    RUN: {"launch": Command("run a study from its file to its ablation table", "sweeps.launch", "launch")},
    WATCH: {
        "monitor": Command("watch progress, queue, costs and failures live", "slurm.monitor", "monitor"),
        "status": Command(
            "print the state of a study; short for launch --status", "sweeps.launch", "launch", ("--status",)
        ),
    },
    ANALYSE: {},  # the subcommands of `python -m analysis`, see `find`
    DATA: {
        "data": Command("generate, import and inspect data files", "mmkd.data.__main__", "data"),
        "predict": Command("predict for new recordings with a trained student", "mmkd.predict", "predict"),
        "export": Command("write a trained student to one self-contained file", "mmkd.export", "export"),
    },
}

USAGE = """\
usage: {prog} COMMAND ...

Run ablation studies of knowledge distillation from multimodal teachers to unimodal students, on a laptop or Slurm.

{commands}

  {prog} COMMAND --help                  the options of a command, with examples
  {prog} launch --study crd_attention    a first study on synthetic data, in minutes
"""


class Siblings:
    """Find sweeps, slurm and analysis beside mmkd, even if the working directory or another path has such a name."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """Implement `importlib.abc.MetaPathFinder`."""
        return PathFinder.find_spec(name, [str(HOME)]) if name in SIBLINGS else None


def all_commands() -> dict[str, dict[str, Command]]:
    """All commands by group and name."""
    summaries: dict[str, str] = import_module("analysis.__main__").summaries()
    analyses = {name: Command(summary, "analysis.__main__", "", (name,)) for name, summary in summaries.items()}
    return COMMANDS | {ANALYSE: analyses}


def find(name: str) -> Command:
    """The command of that name.

    Raises:
        UserError: there is none; names the nearest.
    """
    for commands in (COMMANDS, all_commands()):
        known = {name: command for group in commands.values() for name, command in group.items()}
        if name in known:
            return known[name]
    return known[choose("command", name, known)]


def help_text(prog: str) -> str:
    """One line per command, in groups."""

    def lines() -> Iterator[str]:
        for group, commands in all_commands().items():
            yield f"{group}:"
            yield from (f"  {name:<12} {command.summary}" for name, command in commands.items())

    return USAGE.format(prog=prog, commands="\n".join(lines()))


def run(command: Command, arguments: list[str], prog: str) -> int:
    """Import the command's module and run it.

    Raises:
        UserError: another distribution has replaced files of the package.
    """
    package = command.module.partition(".")[0]
    try:
        main = import_module(command.module).main
    except Exception as error:  # a foreign package of that name can fail in any way
        raise_conflict(package, error)
        raise
    try:
        return int(main([*command.first, *arguments], f"{prog} {command.prog}".strip()))
    except ImportError as error:  # of what is imported where it is needed
        raise_conflict(package, error)
        raise


def raise_conflict(package: str, error: Exception) -> None:
    """Raise a UserError if another distribution also installed a package of that name.

    Raises:
        UserError: there is one; names it, the file and the remedy.
    """
    from importlib.metadata import packages_distributions, version

    rivals = sorted({name for name in packages_distributions().get(package, ()) if name != "mmkd"})
    if not rivals:
        return
    others = ", ".join(f"{name} {version(name)}" for name in rivals)
    raise UserError(
        f"{HOME / package / '__init__.py'}: expected mmkd's package {package!r}, found files of {others} "
        f"({type(error).__name__}: {error}); install mmkd in a separate environment, or run: "
        f"pip uninstall {' '.join(rivals)}, then reinstall mmkd (pip install --force-reinstall --no-deps)"
    ) from error


def main(arguments: list[str] | None = None) -> int:
    """Run `mmkd COMMAND ...` and return the exit code."""
    if Siblings not in sys.meta_path:
        sys.meta_path.insert(0, Siblings)
    prog = "python -m mmkd" if Path(sys.argv[0]).name == "__main__.py" else "mmkd"
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name in ("-h", "--help", ""):
        print(help_text(prog), end="", file=sys.stdout if name else sys.stderr)
        return 0 if name else 2
    if name == "--version":
        print(f"mmkd {__version__}")
        return 0
    try:
        return run(find(name), rest, prog)
    except UserError as error:
        print_error(error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
