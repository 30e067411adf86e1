"""The command: from a study to an ablation table. `python sweeps/launch.py --help` teaches it."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmkd.errors import UserError
from mmkd.lock import LockLost
from sweeps.options import make_parser, overrides_of, site_changes
from sweeps.site import Site, load_site
from sweeps.study import find_study, read_toml, study_names

if TYPE_CHECKING:
    from mmkd.data import DatasetInfo
    from mmkd.rundir import Root
    from slurm.backend import Backend
    from sweeps.planning import Row
    from sweeps.study import StudyFile

# torch, Optuna and pandas are imported where they are first needed: --help and --list answer at once.

EXIT_BUDGET = 3
"""The GPU-hours of --max-gpu-hours are spent, and the study is not done."""


@dataclass(frozen=True)
class Launch:
    """A launch, resolved: what runs where; `name` is what the study's table is kept as."""

    study: StudyFile
    origin: Path
    name: str
    rows: Sequence[Row]
    profile: str
    root: Root
    site: Site
    backend: Backend
    parallel: int
    environment: Mapping[str, str]


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


def choose_cluster(wanted: str) -> str:
    """slurm, local or debug; `auto` is Slurm on a machine of a cluster.

    Raises:
        UserError: the machine has Slurm, which does not answer.
    """
    from slurm.accounting import NoAnswer, ask

    if wanted in ("local", "debug") or (wanted == "auto" and shutil.which("sbatch") is None):
        return wanted if wanted == "debug" else "local"
    try:
        ask("sinfo", "-h", "-o", "%P")
    except NoAnswer as error:
        if wanted == "auto" and "config" in str(error).lower():
            return "local"  # installed, but this machine is of no cluster
        said = str(error).replace("\n", "; ")
        raise UserError(f"Slurm does not answer ({said}); try again later, or --cluster local runs here") from None
    return "slurm"


def choose_backend(options: argparse.Namespace, site: Site) -> tuple[Backend, int]:
    """The backend and its number of slots.

    Raises:
        UserError: it is not to be had.
    """
    from mmkd import trial
    from slurm.backend import SubmissionRefused
    from slurm.cluster import SlurmBackend
    from slurm.local import DebugBackend, LocalBackend, usable_cores, visible_gpus

    cluster = choose_cluster(options.cluster)
    if cluster == "slurm":
        try:
            return SlurmBackend(site.slurm), site.parallel
        except SubmissionRefused as refusal:
            raise UserError(f"--cluster slurm: {refusal}") from None
    gpus = [] if options.device == "cpu" else visible_gpus()
    if options.device == "cuda" and not gpus:
        raise UserError("--device cuda: nvidia-smi shows no GPU on this machine; use --device auto or cpu")
    if cluster == "debug":
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


def prepare(options: argparse.Namespace) -> Launch:
    """Resolve the command line, the study, the data and the site.

    Raises:
        UserError: something is missing or not valid.
    """
    from mmkd.rundir import Root
    from slurm.local import usable_cores
    from sweeps.planning import Machine, plan
    from sweeps.study import load_profile, load_study

    origin = find_study(options.study)
    study = load_study(origin, overrides_of(options))
    name = table_name(options, origin)
    site = load_site(options.site, site_changes(options))
    root = Root(options.root.absolute())
    backend, parallel = choose_backend(options, site)
    make_root(root)
    info = open_data(study, root)
    if study.primary not in info.modalities:
        raise UserError(f"the data have no modality {study.primary!r}: give --primary {' or '.join(info.modalities)}")
    profile_name, profile = load_profile(study.profile, info.source)
    threads = site.slurm.cpus if backend.name == "slurm" else max(1, usable_cores() // parallel)
    machine = Machine(info.path.absolute(), threads, options.device)
    rows = plan(study, origin, profile, info, root, machine)
    environment = {"MMKD_STAGE": "1"} if site.stage else {}
    return Launch(study, origin, name, rows, profile_name, root, site, backend, parallel, environment)


def launch(options: argparse.Namespace) -> int:
    """Run a study to its table; the exit code."""
    from sweeps import showing

    made = prepare(options)
    showing.show_plan(made.study, made.rows, made.root, made.profile, made.backend.name, made.parallel)
    if options.dry_run:
        return 0
    return run(made, retry=options.retry == "failed", max_gpu_hours=options.max_gpu_hours)


def run(made: Launch, *, retry: bool = False, max_gpu_hours: float | None = None) -> int:
    """Work on the rows until they are done, and print the table; the exit code."""
    from rich.console import Console

    from sweeps.controller import Controller, Interrupted, Stop
    from sweeps.reporting import Reporter
    from sweeps.rowwork import RowWork
    from sweeps.showing import say_next

    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda got, frame: received.append(got))
    stop_file = made.root.stop(made.name)
    stop_file.unlink(missing_ok=True)

    def stop_asked() -> Stop | None:
        if received:
            return Stop.WITHOUT_JOBS if received[0] == signal.SIGUSR1 else Stop.WITH_JOBS
        return Stop.WITH_JOBS if stop_file.exists() else None

    record_study(made.root, made.name, made.study, made.rows)
    works: list[RowWork] = []
    try:
        works.extend(RowWork(row, made.root, made.parallel, made.origin) for row in made.rows)
        for work in works if retry else ():
            print(f"row {work.row.name}: {work.retry_failed()} failed trials are tried again")
        if any(work.remaining for work in works):
            check_data(made.rows)
        with Reporter(Console()) as reporter:
            controller = Controller(
                works, made.root, made.backend, made.parallel, reporter, stop_asked,
                environment=made.environment, max_gpu_hours=max_gpu_hours, interval=0.2 if made.backend.prompt else 0.5,
            )  # fmt: skip
            controller.run()
        failed = [work for work in works if work.failed]
    except Interrupted:
        stop_file.unlink(missing_ok=True)
        print("stopped; the same command goes on where it was")
        return 128 + (received[0] if received else signal.SIGTERM)
    finally:
        for work in works:
            work.close()
    for work in failed:
        print(f"row {work.row.name} failed: {work.failed}", file=sys.stderr)
    print_table(made.root, made.name)
    if controller.budget_spent:
        print(f"--max-gpu-hours {max_gpu_hours:g} are spent and runs are left: raise it, and the same command goes on")
        return EXIT_BUDGET
    say_next(made.study, made.root, made.name)
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
