"""The command: from a study to an ablation table. `python sweeps/launch.py --help` teaches it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmkd.errors import UserError
from mmkd.lock import LockLost
from mmkd.terminal import complain, forgive_encoding, is_plain, printable
from sweeps.options import make_parser, overrides_of, site_changes
from sweeps.site_file import Site, load_site
from sweeps.study import find_study, read_toml, study_names

if TYPE_CHECKING:
    from mmkd.data import DatasetInfo
    from mmkd.rundir import Root
    from slurm.backend import Backend
    from sweeps.planning import Row
    from sweeps.rowwork import RowWork
    from sweeps.stopping import StopRequests
    from sweeps.study import StudyFile

# torch, Optuna and pandas are imported where they are first needed: --help and --list answer at once.

EXIT_BUDGET = 3
"""The GPU-hours of --max-gpu-hours are spent, and the study is not done."""


@dataclass(frozen=True)
class Launch:
    """A launch, resolved: what runs where.

    `name` is what the study's table is kept as; `code` is the snapshot that jobs run, None for the code as it lies.
    """

    study: StudyFile
    origin: Path
    name: str
    rows: Sequence[Row]
    profile: str
    root: Root
    site: Site
    backend: Backend
    parallel: int
    code: Path | None
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
        make_root(root)
        path.parent.mkdir(exist_ok=True)
        remove_leftovers(path.parent, path.name)
        make_synthetic(path, size)  # type: ignore[arg-type]  # checked there
    return read_info(path)


def print_table(root: Root, name: str) -> None:
    """The study's ablation table."""
    import analysis

    width = shutil.get_terminal_size(fallback=(100, 24)).columns
    print()
    print(printable(analysis.to_text(analysis.table(analysis.load(root.path), name), width)))


def prepare(options: argparse.Namespace) -> Launch:
    """Resolve the command line, the study, the data and the site.

    Raises:
        UserError: something is missing or not valid.
    """
    from mmkd.rundir import Root
    from slurm.local import usable_cores
    from sweeps.backends import choose_backend
    from sweeps.planning import Machine, plan
    from sweeps.recorded import table_name
    from sweeps.snapshots import run_from, snapshot_place
    from sweeps.study import load_profile, load_study

    origin = find_study(options.study)
    study = load_study(origin, overrides_of(options))
    name = table_name(options, origin)
    site = load_site(options.site, site_changes(options))
    root = Root.at(options.root)
    backend, parallel = choose_backend(options, site)
    refuse_contradictions(options, backend)
    info = open_data(study, root)
    if study.primary not in info.modalities:
        raise UserError(f"the data have no modality {study.primary!r}: give --primary {' or '.join(info.modalities)}")
    profile_name, profile = load_profile(study.profile, info.source)
    threads = site.slurm.cpus if backend.name == "slurm" else max(1, usable_cores() // parallel)
    machine = Machine(info.path.absolute(), threads, options.device)
    rows = plan(study, origin, profile, info, root, machine)
    make_root(root)
    code = snapshot_place(root) if options.snapshot else None
    environment = {**({"MMKD_STAGE": "1"} if site.stage else {}), **(run_from(code) if code else {})}
    return Launch(study, origin, name, rows, profile_name, root, site, backend, parallel, code, environment)


def refuse_contradictions(options: argparse.Namespace, backend: Backend) -> None:
    """Options that do not go together.

    Raises:
        UserError: naming them.
    """
    if options.detach and backend.name != "slurm":
        raise UserError(
            f"--detach: needs Slurm, and this would run on {backend.name}: nohup or tmux keep it alive here"
        )
    if options.snapshot and backend.name == "debug":
        raise UserError("--snapshot: --cluster debug runs trials in this process; use --cluster local or slurm")
    if options.probe and not options.dry_run:
        raise UserError("--probe: goes with --dry-run")


def launch(options: argparse.Namespace) -> int:
    """Run a study to its table; the exit code."""
    from sweeps import detaching, showing
    from sweeps.actions import look_ahead
    from sweeps.recorded import record_study
    from sweeps.snapshots import take_snapshot

    made = prepare(options)
    showing.show_plan(made.study, made.rows, made.root, made.profile, made.backend.name, made.parallel)
    if options.dry_run:
        return look_ahead(made, options)
    record_study(made.root, made.name, made.study, made.rows, options.max_gpu_hours)
    if made.code is not None:
        print(f"code      a copy in {take_snapshot(made.root)}")
    return detaching.detach(made, options) if options.detach else run(made, options)


def run(made: Launch, options: argparse.Namespace) -> int:
    """Work on the rows until they are done, and print the table; the exit code."""
    from mmkd.files import remove_leftovers
    from sweeps import detaching
    from sweeps.controller import Interrupted
    from sweeps.rowwork import RowWork
    from sweeps.stopping import StopRequests

    stop = StopRequests(made.root.stop(made.name), detached=bool(options.detached))
    works: list[RowWork] = []
    interrupted = budget_spent = False
    try:
        if options.detached:
            detaching.begin(made)
        works.extend(RowWork(row, made.root, made.parallel, made.origin) for row in made.rows)
        stop.file.unlink(missing_ok=True)  # what was asked of an earlier controller
        remove_leftovers(stop.file.parent, made.root.study(made.name).name)  # of an earlier launch that was killed
        budget_spent = control(made, options, works, stop)
    except Interrupted:
        interrupted = True
        stop.file.unlink(missing_ok=True)
    finally:
        for work in works:
            work.close()
    if not interrupted:
        return conclude(made, options, works, budget_spent=budget_spent)
    print("stopped; the same command goes on where it was")
    return detaching.hand_over(made, options) if stop.wants_successor() else stop.exit_code


def control(made: Launch, options: argparse.Namespace, works: Sequence[RowWork], stop: StopRequests) -> bool:
    """Keep the slots busy until all rows are done; whether the GPU-hours were spent before that.

    Raises:
        Interrupted: `stop`; everything is on disk.
    """
    from rich.console import Console

    from mmkd.provenance import SOURCE
    from sweeps.controller import Controller
    from sweeps.detaching import goes_on
    from sweeps.reporting import Reporter
    from sweeps.snapshots import CodeWatch
    from sweeps.wording import count

    for work in works if options.retry == "failed" and not goes_on(options) else ():
        again = work.retry_failed()
        print(f"row {work.row.name}: {count(again, 'failed trial')} {'is' if again == 1 else 'are'} tried again")
    if any(work.remaining for work in works):
        check_data(made.rows)
    watch = CodeWatch(works, made.root, SOURCE if made.code is None else made.code / "mmkd")
    # srun --unbuffered gives a job a terminal, which nobody looks at: its log gets plain lines.
    with Reporter(Console(force_terminal=False if options.detached else None)) as reporter:
        if changed := watch.begin():
            reporter.event(changed)
        controller = Controller(
            works, made.root, made.backend, made.parallel, reporter, stop, environment=made.environment,
            max_gpu_hours=options.max_gpu_hours, news=watch, interval=0.2 if made.backend.prompt else 0.5,
        )  # fmt: skip
        controller.run()
    return controller.budget_spent


def conclude(made: Launch, options: argparse.Namespace, works: Sequence[RowWork], *, budget_spent: bool) -> int:
    """Say what failed and print the table; the exit code."""
    from sweeps.detaching import dismiss_successors
    from sweeps.showing import say_next

    failed = [line for work in works if (line := failure_of(work, ended=not budget_spent))]
    for line in failed:
        print(printable(line), file=sys.stderr)
    print_table(made.root, made.name)
    if options.detached:
        dismiss_successors(made)
    if budget_spent:
        spent = f"--max-gpu-hours {options.max_gpu_hours:g} is spent and runs are left"
        print(f"{spent}: raise it, and the same command goes on")
        return EXIT_BUDGET
    say_next(made.study, made.root, made.name, succeeded=not failed)
    return 1 if failed else 0


def failure_of(work: RowWork, *, ended: bool) -> str:
    """What of a row failed for good; empty if nothing did. Unless all its work has `ended`, only the row itself can."""
    from sweeps.wording import count

    if work.failed:
        return f"row {work.row.name} failed: {work.failed}"
    if not ended:
        return ""
    said = []
    if trials := work.failed_trials():
        said.append(f"{count(len(trials), 'trial')} failed for good (--retry failed tries them again)")
    if seeds := work.failed_seeds():
        which = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
        said.append(f"{which} failed for good (the same command tries them again)")
    return f"row {work.row.name}: {'; '.join(said)}" if said else ""


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
        UserError: it cannot be made or written, or its name has what sbatch would read as something else.
    """
    if "\\" in str(root.path) or not is_plain(str(root.path)):
        raise UserError(f"--root {str(root.path)!r}: choose a path without line breaks, control characters and '\\'")
    try:
        root.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root.path) as probe:
            probe.write(b"x")  # which a full disk refuses, while it may still make a file
    except OSError as error:
        raise UserError(f"--root {root.path}: cannot be written ({error.strerror})") from None


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        forgive_encoding()
        if options.list:
            list_studies()
            return 0
        if options.study is None:
            parser.error("name a --study; --list shows them, --help has examples")
        options.arguments = sys.argv[1:] if arguments is None else arguments
        if options.status or options.cancel or options.clean or options.archive:
            from sweeps.actions import look_after

            return look_after(options)
        return launch(options)
    except UserError as error:
        complain(error)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (head, less): there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, LockLost) as error:
        complain(f"{error}; the same command goes on when that is mended")
        return 1


if __name__ == "__main__":
    sys.exit(main())
