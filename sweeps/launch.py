"""The command: from a study to an ablation table. `python sweeps/launch.py --help` teaches it."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmkd.errors import UserError
from mmkd.lock import LockLost
from sweeps.study import find_study, parse_override, read_toml, study_names

if TYPE_CHECKING:
    from mmkd.data import DatasetInfo
    from mmkd.rundir import Root
    from sweeps.planning import Row
    from sweeps.study import StudyFile

# torch, Optuna and pandas are imported where they are first needed: --help and --list answer at once.

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
  python sweeps/launch.py --study my_study.toml --set rows.crd_attention.space.beta.high=0.5
      a study file of your own, with one value changed

Stop it with Ctrl-C, or let the machine die: the same command goes on where it was.
Exit codes: 0 done, 1 something failed at run time, 2 bad input, 130 stopped by Ctrl-C (143 by SIGTERM)."""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python sweeps/launch.py",
        description="Run a study: train its teachers, tune each row with Optuna on validation, retrain the winners on "
        "fresh seeds, and print the ablation table. A study is a list of rows in a TOML file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to run")
    what.add_argument("--study", metavar="NAME", help="a study of --list, or a path that ends in .toml")
    what.add_argument("--list", action="store_true", help="the studies, a line each, and stop")
    what.add_argument("--dry-run", action="store_true", help="say what would run, and what it has cost; then stop")
    what.add_argument(
        "--data", metavar="FILE.h5", help="a data set (python -m mmkd.data makes one); default: synthetic"
    )
    what.add_argument("--primary", metavar="MODALITY", help="the student's only input")
    what.add_argument("--pairing", metavar="NAME", help="complete, others, multimodal, or a modality, for every row")
    what.add_argument(
        "--as", dest="name", metavar="NAME",
        help="keep the table under this name (default: the study's, with --data, --primary and --pairing)",
    )  # fmt: skip
    budget = parser.add_argument_group("budget")
    budget.add_argument("--trials", type=_count, metavar="N", help="tuning trials of each row")
    budget.add_argument("--epochs", type=_count, metavar="N", help="epochs of teachers and students")
    budget.add_argument("--seeds", type=_count, metavar="N", help="fresh seeds that each row's winner is retrained on")
    budget.add_argument("--sampler", choices=["auto", "random", "tpe", "gp", "cmaes"], help="for every row")
    budget.add_argument(
        "--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[],
        help="any other value of the study file, for example training.batch_size=16 or rows.NAME.space.beta.high=0.5 "
        "(rows.* means every row); may be repeated",
    )  # fmt: skip
    where = parser.add_argument_group("where to run")
    where.add_argument(
        "--cluster", choices=["auto", "slurm", "local", "debug"], default="auto",
        help="auto, local: processes of this machine; debug: one after the other in this process; slurm: not yet",
    )  # fmt: skip
    where.add_argument(
        "--parallel", type=_count, metavar="N", help="trials at once (default: GPUs, else up to 4 cores)"
    )
    where.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: a GPU where there is one"
    )
    where.add_argument("--root", type=Path, default=Path("runs"), help="folder of all results (default: ./runs)")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
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


def list_studies() -> None:
    """One line a study."""
    for name in study_names():
        print(f"{name:<24} {read_toml(find_study(name)).get('title', '')}")


def open_data(study: StudyFile, root: Root) -> DatasetInfo:
    """The study's data set; synthetic data are made on first use.

    Raises:
        UserError: the file is missing, foreign or damaged.
    """
    from mmkd.data import make_synthetic, read_info
    from mmkd.files import remove_leftovers

    if not study.data.startswith("synthetic:"):
        return read_info(Path(study.data))
    size = study.data.removeprefix("synthetic:")
    path = root.data(f"synthetic-{size}.h5")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        make_synthetic(path, size)  # type: ignore[arg-type]  # checked there
    return read_info(path)


def choose_backend(options: argparse.Namespace) -> tuple[Any, int]:
    """The backend and its number of slots.

    Raises:
        UserError: it is not to be had.
    """
    from mmkd import trial
    from slurm.local import DebugBackend, LocalBackend, usable_cores, visible_gpus

    if options.cluster == "slurm":
        raise UserError("--cluster slurm: this version has no Slurm backend yet; use --cluster local")
    gpus = [] if options.device == "cpu" else visible_gpus()
    if options.device == "cuda" and not gpus:
        raise UserError("--device cuda: nvidia-smi shows no GPU on this machine; use --device auto or cpu")
    if options.cluster == "debug":
        return DebugBackend(trial.main), 1
    return LocalBackend(gpus), options.parallel or len(gpus) or min(usable_cores(), 4)


def record_study(root: Root, name: str, study: StudyFile, rows: Sequence[Row]) -> None:
    """Write which rows the study has: what its table is made from."""
    from mmkd.files import write_json

    facts = {
        "name": name,
        "title": study.title,
        "control": study.control,
        "rows": [
            {
                "name": row.name,
                "label": row.label,
                "group": row.group,
                "paper": row.paper and row.paper.model_dump(),
                "directory": row.directory.path.name,
                "trials": row.trials,
                "seeds": list(range(1, row.seeds + 1)),
            }
            for row in rows
        ],
    }
    path = root.study(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, facts)


def table_name(options: argparse.Namespace, origin: Path) -> str:
    """What the table is kept as: --as, else the study's name with the data, primary and pairing that were asked for.

    Raises:
        UserError: a name that cannot be a file's.
    """
    from mmkd.rundir import check_name

    if options.name:
        return check_name("study", options.name)
    data = Path(options.data).stem if options.data else None
    parts = [origin.stem, *(part for part in (data, options.primary, options.pairing) if part)]
    return check_name("study", re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(parts)))


def print_table(root: Root, name: str) -> None:
    """The study's ablation table."""
    import analysis

    width = shutil.get_terminal_size(fallback=(100, 24)).columns
    print()
    print(analysis.to_text(analysis.table(analysis.load(root.path), name), width))


def launch(options: argparse.Namespace) -> int:
    """Run a study to its table; the exit code."""
    from mmkd.rundir import Root
    from slurm.local import usable_cores
    from sweeps.planning import Machine, plan
    from sweeps.study import load_profile, load_study

    origin = find_study(options.study)
    study = load_study(origin, overrides_of(options))
    name = table_name(options, origin)
    root = Root(options.root.absolute())
    backend, parallel = choose_backend(options)
    make_root(root)
    info = open_data(study, root)
    if study.primary not in info.modalities:
        raise UserError(f"the data have no modality {study.primary!r}: give --primary {' or '.join(info.modalities)}")
    profile_name, profile = load_profile(study.profile, info.source)
    threads = max(1, usable_cores() // parallel)
    machine = Machine(info.path.absolute(), threads, options.device)
    rows = plan(study, origin, profile, info, root, machine)
    from sweeps import showing

    showing.show_plan(study, rows, root, profile_name, backend.name, parallel)
    if options.dry_run:
        return 0
    return run(study, origin, name, rows, root, backend, parallel)


def run(
    study: StudyFile,
    origin: Path,
    name: str,
    rows: Sequence[Row],
    root: Root,
    backend: Any,
    parallel: int,
) -> int:
    """Work on the rows until they are done, and print the table; the exit code."""
    from rich.console import Console

    from sweeps.controller import Controller, Interrupted
    from sweeps.reporting import Reporter
    from sweeps.rowwork import RowWork
    from sweeps.showing import say_next

    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, frame: received.append(got))
    record_study(root, name, study, rows)
    works: list[RowWork] = []
    try:
        works.extend(RowWork(row, root, parallel, origin) for row in rows)
        if any(work.remaining for work in works):
            check_data(rows)
        with Reporter(Console()) as reporter:
            Controller(works, root, backend, parallel, reporter, lambda: bool(received)).run()
        failed = [work for work in works if work.failed]
    except Interrupted:
        print("stopped; the same command goes on where it was")
        return 128 + received[0]
    finally:
        for work in works:
            work.close()
    for work in failed:
        print(f"row {work.row.name} failed: {work.failed}", file=sys.stderr)
    print_table(root, name)
    say_next(study, root, name)
    return 1 if failed else 0


def check_data(rows: Sequence[Row]) -> None:
    """Read the whole data set once before anything runs on it.

    Raises:
        UserError: it has changed, or holds NaN; naming split, modality and sample.
    """
    from mmkd.data import check_dataset

    check_dataset(rows[0].machine.data_path)


def make_root(root: Root) -> None:
    """Make the root folder.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        root.path.mkdir(parents=True, exist_ok=True)
        probe = root.path / f".tmp-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"--root {root.path}: cannot be written ({error.strerror})") from None


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        if options.list:
            list_studies()
            return 0
        if options.study is None:
            parser.error("name a --study; --list shows them, --help has examples")
        return launch(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output has gone (head, less): there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, LockLost) as error:
        print(f"error: {error}; the same command goes on when that is mended", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
