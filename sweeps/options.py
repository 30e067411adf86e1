"""The command line of launch.py."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from mmkd.command import Parser, positive_integer
from mmkd.errors import UserError
from slurm.settings import SlurmSettings
from sweeps.site_file import default_site_file
from sweeps.study_file import parse_override

EXAMPLES = """\
examples:
  python sweeps/launch.py --study crd_attention
      the whole job on synthetic data, in minutes: teacher, tuning, confirmation, table
  python -m mmkd.data import utd-mhad UTD_MHAD.tar.xz utd.h5
  python sweeps/launch.py --study crd_attention --data utd.h5 --primary accelerometer
      the same on real data
  python sweeps/launch.py --study crd_attention --data utd.h5 --primary accelerometer --dry-run
      what that would run, and what it has cost so far
  python sweeps/launch.py --study crd_attention --trials 30 --seeds 10
      extends a finished study: what is there stays
  python sweeps/launch.py --study crd_attention --cluster slurm --detach
      on a cluster, with the controller in a job of its own; then --status, --cancel, --archive FILE.tar.gz
  python sweeps/launch.py --study my_study.toml --set rows.crd_attention.space.beta.high=0.5
      a study file of your own, with one value changed

Stop it with Ctrl-C, or let the machine die: run the same command again to resume.
Exit codes: 0 done, 1 something failed at run time (--cancel: something would not end), 2 bad input, 3 the GPU-hours
are spent, 130 stopped by Ctrl-C, 143 by SIGTERM or --cancel, 138 by SIGUSR1, which leaves its jobs running."""


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python sweeps/launch.py",
        description="Run a study: train its teachers, tune each row with Optuna on validation, retrain the winners on "
        "fresh seeds, and print the ablation table. A study is a list of rows in a TOML file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --detach hands the words of the command line on as they are
    )
    what = parser.add_argument_group("what to run")
    what.add_argument("--study", metavar="NAME", help="a study of --list, or a path that ends in .toml")
    what.add_argument("--list", action="store_true", help="the studies, a line each, and stop")
    what.add_argument(
        "--dry-run", action="store_true",
        help="say what would run, what it has cost and about how long the rest takes; on Slurm print a job's script",
    )  # fmt: skip
    what.add_argument(
        "--probe", action="store_true",
        help="with --dry-run: where nothing alike has run yet, run one epoch of it here to tell",
    )  # fmt: skip
    what.add_argument(
        "--retry", choices=["failed"],
        help="also try trials again that Optuna was told had failed for good (others are tried at every launch)",
    )  # fmt: skip
    what.add_argument(
        "--data", metavar="FILE.h5", help="a data set (python -m mmkd.data makes one); default: synthetic"
    )
    what.add_argument("--primary", metavar="MODALITY", help="the student's only input")
    what.add_argument("--pairing", metavar="NAME", help="complete, others, multimodal, or a modality, for every row")
    what.add_argument(
        "--as", dest="name", metavar="NAME",
        help="keep the table under this name (default: the study's, with --data, --primary and --pairing)",
    )  # fmt: skip
    add_actions(parser)
    budget = parser.add_argument_group("budget")
    budget.add_argument("--trials", type=positive_integer, metavar="N", help="tuning trials of each row")
    budget.add_argument("--epochs", type=positive_integer, metavar="N", help="epochs of teachers and students")
    budget.add_argument(
        "--seeds", type=positive_integer, metavar="N", help="fresh seeds that each row's winner is retrained on"
    )
    budget.add_argument(
        "--max-gpu-hours",
        type=_hours,
        metavar="H",
        help="submit nothing new once so many GPU-hours are spent",
    )
    budget.add_argument(
        "--sampler", choices=["auto", "random", "tpe", "gp", "cmaes"],
        help="for every row; auto: gp where there are 3 trials a slot or more, else tpe; from trial 500 of a row on, "
        "tpe takes over from gp, whose cost grows with the cube of the trials",
    )  # fmt: skip
    budget.add_argument(
        "--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[],
        help="any other value of the study file, for example training.batch_size=16 or rows.NAME.space.beta.high=0.5 "
        "(rows.* means every row); may be repeated",
    )  # fmt: skip
    where = parser.add_argument_group("where to run")
    where.add_argument(
        "--cluster", choices=["auto", "slurm", "local", "debug"], default="auto",
        help="slurm: a job a trial; local: processes of this machine; debug: one after the other in this process; "
        "auto: slurm where it answers or a --slurm option or --detach asks for it, else local",
    )  # fmt: skip
    where.add_argument(
        "--parallel", type=positive_integer, metavar="N",
        help="trials at once; on Slurm those that wait in the queue too (default: the site file's, or 16; "
        "on one machine its GPUs, else up to 4 cores)",
    )  # fmt: skip
    where.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: a GPU where there is one"
    )
    where.add_argument(
        "--snapshot", action="store_true",
        help="run a copy of the code, kept under the root: edits do not reach a running study",
    )  # fmt: skip
    where.add_argument("--detached", choices=["first", "next"], help=argparse.SUPPRESS)
    where.add_argument("--root", type=Path, default=Path("runs"), help="folder of all results (default: ./runs)")
    add_slurm_options(parser)
    return parser


def add_actions(parser: argparse.ArgumentParser) -> None:
    """What can be done with a study besides running it here."""
    group = parser.add_argument_group(
        "look after a study",
        "instead of running it here; with the launch's own --study, --data, --primary, --pairing,\n"
        "--as and --root, or with a name of ROOT/studies/*.json as --study",
    )
    actions = group.add_mutually_exclusive_group()
    actions.add_argument(
        "--detach",
        action="store_true",
        help="Slurm: the controller runs in a small job of its own ([detach] of the site file)",
    )
    actions.add_argument("--status", action="store_true", help="how it stands, once; reads only")
    actions.add_argument(
        "--cancel", action="store_true", help="end its jobs with a checkpoint, and its controller; a launch goes on"
    )
    actions.add_argument(
        "--clean", action="store_true",
        help="show its disk use, then remove checkpoints that nothing goes on from (with --dry-run: show only)",
    )  # fmt: skip
    actions.add_argument(
        "--archive", type=Path, metavar="FILE.tar.gz", help="all of it but the data in one file; deletes nothing"
    )


def add_slurm_options(parser: argparse.ArgumentParser) -> None:
    """An option --slurm.NAME for each of a job's settings."""
    group = parser.add_argument_group(
        "Slurm",
        f"what each trial's job asks for; a lab writes it once into its site file, {default_site_file()};\n"
        "any --slurm option asks for Slurm itself, as --cluster slurm does",
    )
    group.add_argument("--site", type=Path, metavar="FILE", help="a site file elsewhere")
    group.add_argument("--stage", action="store_true", default=None, help="copy the data to a node's $TMPDIR first")
    for name, field in SlurmSettings.model_fields.items():
        action = "append" if name in ("setup", "extra") else "store"
        group.add_argument(
            f"--slurm.{name}", dest=f"slurm_{name}", metavar=name.upper(), help=_help(name, field), action=action
        )


def _help(name: str, field: FieldInfo) -> str:
    default = field.default
    shown = (
        ""
        if name == "python" or default in (None, "", (), {})
        else f" (default: {default:g})"
        if isinstance(default, float)
        else f" (default: {default})"
    )
    return f"{field.description}{shown}".replace("%", "%%")


def site_changes(options: argparse.Namespace) -> dict[str, Any]:
    """The command line's words over the site file.

    Raises:
        UserError: --slurm.extra without =.
    """
    given = {name: getattr(options, f"slurm_{name}") for name in SlurmSettings.model_fields}
    slurm = {name: value for name, value in given.items() if value is not None}
    if "extra" in slurm:
        pairs = [text.partition("=") for text in slurm["extra"]]
        if any(not equals for _, equals, _ in pairs):
            raise UserError(
                f"--slurm.extra {' '.join(slurm['extra'])}: write NAME=VALUE, as in reservation=lab, or NAME= where "
                f"sbatch wants no value, as in exclusive="
            )
        slurm["extra"] = {name: value for name, _, value in pairs}
    others = {name: getattr(options, name) for name in ("parallel", "stage") if getattr(options, name) is not None}
    return {**others, **({"slurm": slurm} if slurm else {})}


def _hours(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def overrides_of(options: argparse.Namespace) -> list[tuple[str, Any]]:
    """The command line's changes of the study file, as dotted keys, in the order in which they are made."""
    changes: list[tuple[str, Any]] = []
    for name in ("pairing", "trials", "seeds", "sampler"):
        value = getattr(options, name)
        if value is not None:
            # A row's own value would win over the defaults, so it is set there too.
            changes += [(f"defaults.{name}", value), (f"rows.*.{name}", value)]
    if options.epochs is not None:
        changes += [("training.epochs", options.epochs), ("teacher_training.epochs", options.epochs)]
        changes += [("rows.*.training.epochs", options.epochs), ("rows.*.teacher_training.epochs", options.epochs)]
    for name in ("data", "primary"):
        if getattr(options, name) is not None:
            changes.append((name, getattr(options, name)))
    return changes + [parse_override(text) for text in options.overrides]
