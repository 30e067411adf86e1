"""Define the command line of launch.py."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from mmkd.command import Parser, natural_number, positive_integer
from mmkd.config import Scheme
from mmkd.errors import UserError, errors_about
from slurm.settings import SlurmSettings
from sweeps.advice import advise
from sweeps.site_file import default_site_file
from sweeps.study_file import StudyFile, parse_override
from sweeps.study_keys import check_key

EXAMPLES = """\
examples:
  %(prog)s --study crd_attention
      a first study on synthetic data, in minutes: teachers, tuning, final runs, table
  mmkd data import utd-mhad UTD_MHAD.tar.xz utd.h5
  %(prog)s --study crd_attention --data utd.h5 --primary accelerometer
      the same on real data
  %(prog)s --study crd_attention --data utd.h5 --primary accelerometer --dry-run
      show what that would run, and its cost so far
  %(prog)s --study crd_attention --replicates 8 --trials 6
      extend a finished study; finished trials are kept
  %(prog)s --study crd_attention --cluster slurm --detach
      on a cluster, with the controller as a Slurm job; then --status, --cancel, --archive FILE.tar.gz
  %(prog)s --study my_study.toml --set rows.crd_attention.space.beta.high=0.5
      your own study file, with one value changed

To resume after Ctrl-C, a crash or a reboot, run the same command again.
Exit codes: 0 done; 1 a failure at run time (--cancel: a job did not end); 2 bad input; 3 GPU-hours spent;
130 stopped by Ctrl-C; 143 by SIGTERM or --cancel; 138 by SIGUSR1, which leaves its jobs running."""


PROG = "python sweeps/launch.py"


def make_parser(prog: str = PROG) -> Parser:
    """Create the parser."""
    parser = Parser(
        prog=prog,
        description="Run a study: train its teachers, tune each row with Optuna on validation, retrain each winner\n"
        "on fresh seeds, and print the ablation table. A study is a list of rows in a TOML file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --detach passes the command line on unchanged
    )
    parser.advice = advise
    what = parser.add_argument_group("what to run")
    what.add_argument("--study", metavar="NAME", help="a study from --list, or a path that ends in .toml")
    what.add_argument(
        "--rows", nargs="+", metavar="NAME",
        help="run and print only these rows and the study's control; with --status, show only these rows",
    )  # fmt: skip
    what.add_argument("--list", action="store_true", help="list the studies and exit")
    what.add_argument(
        "--dry-run", action="store_true",
        help="show what would run, its cost so far, an estimate of the rest, and what the table could detect; on Slurm "
        "also a job's script and whether Slurm accepts it",
    )  # fmt: skip
    what.add_argument(
        "--probe", action="store_true",
        help="with --dry-run: run one epoch on this machine of each row and teacher that has no estimate yet",
    )  # fmt: skip
    what.add_argument(
        "--retry", choices=["failed"],
        help="also retry tuning trials that were reported to Optuna as failed (others are retried at every launch)",
    )  # fmt: skip
    what.add_argument("--data", metavar="FILE.h5", help="a data file (see mmkd data --help); default: synthetic data")
    what.add_argument("--primary", metavar="MODALITY", help="the student's only input")
    what.add_argument("--pairing", metavar="NAME", help="for every row: complete, others, multimodal, or a modality")
    what.add_argument(
        "--as", dest="name", metavar="NAME",
        help="name of the table (default: made of --study, --data, --primary and --pairing)",
    )  # fmt: skip
    what.add_argument(
        "--journal", type=Path, metavar="FILE",
        help="keep a copy of all rows' Optuna studies in one journal file, which optuna-dashboard shows side by side",
    )  # fmt: skip
    add_actions(parser)
    budget = parser.add_argument_group("budget")
    budget.add_argument(
        "--replicates", type=positive_integer, metavar="N",
        help="tune and test each row N times, each time with its own teachers, trials and final runs (default: the "
        "study's, or 1)",
    )  # fmt: skip
    budget.add_argument(
        "--splits", choices=get_args(Scheme),
        help="the split of each replicate; file: the data file's own; group-folds: train, valid and test are drawn by "
        "group (subject, speaker, video); resample-valid: only train and valid are drawn",
    )  # fmt: skip
    budget.add_argument("--trials", type=positive_integer, metavar="N", help="tuning trials per row and replicate")
    budget.add_argument(
        "--teacher-trials", type=natural_number, metavar="N",
        help="configurations of the teacher to try in each replicate, of which validation chooses one; 0: teachers are "
        "not tuned (default: the study's, or the profile's: 8 in the default profile, 0 in the others)",
    )  # fmt: skip
    budget.add_argument("--epochs", type=positive_integer, metavar="N", help="epochs of teachers and students")
    budget.add_argument(
        "--seeds", type=positive_integer, metavar="N",
        help="final runs per row and replicate: the winner is retrained on N fresh seeds",
    )  # fmt: skip
    budget.add_argument(
        "--max-gpu-hours", type=_hours, metavar="H", help="submit nothing new once H GPU-hours are spent"
    )
    budget.add_argument(
        "--sampler", choices=["auto", "random", "tpe", "gp", "cmaes"],
        help="for every row; auto: gp if a row has at least three times --parallel trials, otherwise tpe; from trial "
        "500 of a row on, tpe replaces gp, which becomes slow",
    )  # fmt: skip
    budget.add_argument(
        "--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[],
        help="set any other value of the study file, for example training.batch_size=16 or "
        "rows.NAME.space.beta.high=0.5 (rows.* means every row); may be repeated",
    )  # fmt: skip
    add_where(parser)
    add_slurm_options(parser)
    return parser


def add_where(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a study runs and where its results are."""
    where = parser.add_argument_group("where to run")
    where.add_argument(
        "--cluster", choices=["auto", "slurm", "local", "debug"], default="auto",
        help="slurm: one job per trial; local: processes on this machine; debug: one trial after another in this "
        "process; auto: slurm if it answers, or if --detach or a --slurm option requests it, otherwise local",
    )  # fmt: skip
    where.add_argument(
        "--parallel", type=positive_integer, metavar="N",
        help="number of trials at once; on Slurm, pending jobs count too (default: the site file's, or 16; "
        "on one machine, the number of GPUs; without GPUs, the number of cores, at most 4)",
    )  # fmt: skip
    where.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: a GPU if there is one")
    where.add_argument(
        "--snapshot", action="store_true",
        help="run a copy of the code, stored under the root, so that edits do not affect a running study",
    )  # fmt: skip
    where.add_argument(
        "--no-workers", dest="workers", action="store_false",
        help="local: start each trial as a new Python process, which takes some seconds, instead of forking it from "
        "one that has imported torch and read the data",
    )  # fmt: skip
    where.add_argument(
        "--on-event", metavar="COMMAND",
        help="run this command, for at most 30 s, when the study has ended, has failed or needs your attention; "
        "{event} (ended, failed, attention), {study} and {message} in it are replaced; the message is also its "
        "standard input",
    )  # fmt: skip
    where.add_argument("--detached", choices=["first", "next"], help=argparse.SUPPRESS)
    where.add_argument("--root", type=Path, default=Path("runs"), help="directory of all results (default: ./runs)")


def add_actions(parser: argparse.ArgumentParser) -> None:
    """Add the options that do something other than run a study here."""
    group = parser.add_argument_group(
        "look after a study",
        "these options replace the run; give the same --study, --data, --primary, --pairing, --as\n"
        "and --root as at launch, or a name from ROOT/studies/*.json as --study",
    )
    actions = group.add_mutually_exclusive_group()
    actions.add_argument(
        "--detach", action="store_true",
        help="Slurm: run the controller as a small job ([detach] in the site file)",
    )  # fmt: skip
    actions.add_argument("--status", action="store_true", help="print the state of the study and exit; read-only")
    group.add_argument(
        "--each-replicate", action="store_true", help="with --status: one line for each replicate of a row"
    )
    actions.add_argument(
        "--cancel", action="store_true",
        help="end the study's jobs (with a checkpoint) and its controller; launch again to resume",
    )  # fmt: skip
    actions.add_argument(
        "--clean", action="store_true",
        help="show the study's disk use and remove checkpoints that nothing resumes from (with --dry-run: only show)",
    )  # fmt: skip
    actions.add_argument(
        "--archive", type=Path, metavar="FILE.tar.gz",
        help="write everything except the data to one file; deletes nothing",
    )  # fmt: skip


def add_slurm_options(parser: argparse.ArgumentParser) -> None:
    """Add an option --slurm.NAME for each setting of a job."""
    group = parser.add_argument_group(
        "Slurm",
        f"resources of each trial's job; set them once in your site file, {default_site_file()};\n"
        "any --slurm option also implies --cluster slurm",
    )
    group.add_argument("--site", type=Path, metavar="FILE", help="read this site file instead")
    group.add_argument("--stage", action="store_true", default=None, help="copy the data to the node's $TMPDIR first")
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
    """Return the command line's changes to the site file.

    Raises:
        UserError: --slurm.extra without =.
    """
    given = {name: getattr(options, f"slurm_{name}") for name in SlurmSettings.model_fields}
    slurm = {name: value for name, value in given.items() if value is not None}
    if "extra" in slurm:
        pairs = [text.partition("=") for text in slurm["extra"]]
        if any(not equals for _, equals, _ in pairs):
            raise UserError(
                f"--slurm.extra {' '.join(slurm['extra'])}: write NAME=VALUE, as in reservation=lab, or NAME= if "
                f"sbatch takes no value, as in exclusive="
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
    """Return the command line's changes to the study file as dotted keys, in order."""
    changes: list[tuple[str, Any]] = []
    for name in ("pairing", "trials", "seeds", "sampler"):
        value = getattr(options, name)
        if value is not None:
            # A row's own value takes precedence over the defaults, so set it there too.
            changes += [(f"defaults.{name}", value), (f"rows.*.{name}", value)]
    if options.epochs is not None:
        changes += [("training.epochs", options.epochs), ("teacher_training.epochs", options.epochs)]
        changes += [("rows.*.training.epochs", options.epochs), ("rows.*.teacher_training.epochs", options.epochs)]
    keys = {"data": "data", "primary": "primary", "replicates": "replicates", "splits": "splits.scheme"}
    keys |= {"teacher_trials": "teacher_tuning.trials"}
    for name, key in keys.items():
        if getattr(options, name) is not None:
            changes.append((key, getattr(options, name)))
    for text in options.overrides:
        key, value = parse_override(text)
        with errors_about(f"--set {key}"):
            check_key(key, StudyFile)
        changes.append((key, value))
    return changes


def changes_in_words(options: argparse.Namespace) -> str:
    """Return the options that change values of the study file, as they were typed; "" if there are none."""
    names = ("pairing", "replicates", "splits", "trials", "seeds", "teacher_trials", "sampler", "epochs")
    given = [f"--{name.replace('_', '-')} {value}" for name in names if (value := getattr(options, name)) is not None]
    changes = [f"--set {text if len(text) < 80 else f'{text[:80]}…'}" for text in options.overrides]
    return " ".join([*given, *changes])


def refuse_contradictions(options: argparse.Namespace, backend: str) -> None:
    """Refuse options that contradict each other.

    `backend` is the name of the chosen one.

    Raises:
        UserError: naming them.
    """
    if options.detach and backend != "slurm":
        raise UserError(f"--detach: needs Slurm, but this launch would run on {backend}; use nohup or tmux here")
    if options.snapshot and backend == "debug":
        raise UserError("--snapshot: --cluster debug runs trials in this process; use --cluster local or slurm")
    if options.each_replicate:
        raise UserError("--each-replicate: allowed only with --status")
    if options.probe and not options.dry_run:
        raise UserError("--probe: allowed only with --dry-run")
