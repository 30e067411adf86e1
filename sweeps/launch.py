"""Run a study from its file to its ablation table: `python sweeps/launch.py --help`."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmkd.command import print_error, run_command
from mmkd.errors import UserError
from mmkd.terminal import printable
from sweeps.options import PROG, make_parser, site_changes
from sweeps.site_file import load_site
from sweeps.study_file import find_study, read_toml, study_names

if TYPE_CHECKING:
    from mmkd.rundir import Root
    from sweeps.actions.on_event import Notifier
    from sweeps.controller.followed_rows import FollowedRows
    from sweeps.controller.row import RowWork
    from sweeps.controller.stopping import StopRequests
    from sweeps.resolve import Launch

# torch, Optuna and pandas are imported where they are first needed: --help and --list answer at once.

EXIT_BUDGET = 3
"""Exit code: the GPU-hours of --max-gpu-hours are spent and runs are left."""
OUTCOMES = {
    0: ("ended", "all rows are done"),
    1: ("failed", "some runs failed and have no retries left"),
    EXIT_BUDGET: ("attention", "--max-gpu-hours is spent and runs are left"),
}
"""Events of --on-event, by exit code."""


def print_table(root: Root, name: str, rows: Sequence[str] | None = None) -> None:
    """Print the study's ablation table, or the part with these rows."""
    import analysis

    width = shutil.get_terminal_size(fallback=(100, 24)).columns
    print()
    print(printable(analysis.to_text(analysis.table(analysis.load(root.path), name, rows=rows), width, short=True)))


def planned_power(made: Launch) -> str:
    """Say in one line what the table of a planned study could detect."""
    import analysis
    from sweeps.launched_study import study_record

    record, names = study_record(made.name, made.study, made.all_rows), {row.name for row in made.rows}
    part = record.model_copy(update={"rows": tuple(row for row in record.rows if row.name in names)})
    return analysis.planned_power(made.root.path, part)


def launch(options: argparse.Namespace) -> int:
    """Run a study to its table and return the exit code."""
    from sweeps.actions.detach import detach
    from sweeps.actions.dry_run import dry_run, show_plan
    from sweeps.actions.on_event import Notifier
    from sweeps.actions.snapshot import take_snapshot
    from sweeps.actions.study_plan import would_change
    from sweeps.controller.study_journal import check_path
    from sweeps.launched_study import older_rows
    from sweeps.resolve import prepare

    made = prepare(options)
    if options.journal is not None:
        check_path(options.journal, made.root)
    most = made.study.replicates if options.dry_run else 3
    show_plan(made.study, made.rows, made.root, made.profile, made.backend.name, made.parallel, most)
    if said := older_rows(made.root, made.name):
        print(f"older     {said}")
    if options.dry_run:
        code = dry_run(made, options)
        for change in would_change(made):
            print(f"plan      would change: {change}")
        print(f"power     {planned_power(made)}")
        return code
    if made.code is not None:
        print(f"code      a copy in {take_snapshot(made.root)}")
    if options.detach:
        return detach(made, options)
    return run_and_tell(made, options, Notifier(options.on_event or made.site.on_event, made.name))


def run_and_tell(made: Launch, options: argparse.Namespace, tell: Notifier) -> int:
    """See `run`; tells of the study's end, of failures, and if a person has to act."""
    from sweeps.controller.stopping import Halted

    try:
        return run(made, options, tell)
    except Halted as halted:
        print_error(f"{halted}; when that is fixed, run the same command again to resume")
        tell("attention", halted)
        return 1
    except Exception as error:
        tell("failed", error)
        raise


def run(made: Launch, options: argparse.Namespace, tell: Notifier) -> int:
    """Run the rows until they are done, print the table and return the exit code.

    Raises:
        Halted: a person has to act.
    """
    from mmkd.files import remove_leftovers
    from slurm.local_backend import DebugBackend
    from sweeps.actions.detach import begin, hand_over
    from sweeps.actions.study_plan import write_plan
    from sweeps.controller.followed_rows import FollowedRows
    from sweeps.controller.stopping import Interrupted, StopRequests

    stop = StopRequests(made.root.stop(made.name), detached=bool(options.detached))
    if isinstance(made.backend, DebugBackend):
        made.backend.received = stop.received  # its trials run in this process and get its signals
    works: list[RowWork] = []
    interrupted = budget_spent = False
    try:
        if options.detached:
            begin()
        followed = FollowedRows(made.rows, made.parallel, made.origin, made.name)
        works.extend(followed.take(made.rows))
        made.record(options.max_gpu_hours)  # a refused launch changes no record
        for change in write_plan(made):
            print(f"plan      changed: {change}")
        stop.file.unlink(missing_ok=True)  # a request to an earlier controller
        remove_leftovers(stop.file.parent, made.root.study(made.name).name)  # of an earlier launch that was killed
        budget_spent = control(made, options, works, followed, stop)
    except Interrupted:
        interrupted = True
        stop.file.unlink(missing_ok=True)
    finally:
        for work in works:
            work.close()
    if not interrupted:
        code = conclude(made, options, works, budget_spent=budget_spent)
        tell(*OUTCOMES[code])
        return code
    print("stopped; run the same command again to resume")
    return hand_over(made, options) if stop.wants_successor() else stop.exit_code


def control(
    made: Launch, options: argparse.Namespace, works: list[RowWork], followed: FollowedRows, stop: StopRequests
) -> bool:
    """Keep the slots busy until all rows are done. Return True if the GPU-hours ran out before that.

    Followed rows that are taken over are added to `works`.

    Raises:
        Interrupted: on `stop`; everything is on disk.
    """
    from rich.console import Console

    from mmkd.data import check_dataset
    from mmkd.formatting import count
    from mmkd.provenance import SOURCE, source_digest
    from sweeps.actions.detach import continues
    from sweeps.actions.snapshot import CodeWatch
    from sweeps.actions.study_plan import note_tested
    from sweeps.controller.loop import Controller
    from sweeps.controller.progress import Reporter
    from sweeps.controller.study_journal import StudyJournal

    if options.retry == "failed" and not continues(options):
        again = Counter[str]()
        for work in works:
            again[work.row.name] += work.retry_failed()
        for name, number in again.items():
            print(f"row {name}: retrying {count(number, 'failed trial')}")
    if followed or any(work.remaining for work in works):
        check_dataset(made.rows[0].info.path)
    source = SOURCE if made.code is None else made.code / "mmkd"
    watch = CodeWatch(works, made.root, source)
    tunings = [work.tuning for work in works] if options.journal else []
    copy = StudyJournal(options.journal, tunings).update if options.journal else lambda: ""

    def join(work: RowWork) -> str:
        works.append(work)
        tunings.extend([work.tuning] if options.journal else [])
        return watch.join([work])

    def news() -> str:
        note_tested(made.root, made.name, made.rows)
        return "; ".join(filter(None, (watch(), copy())))

    followed.joined = join
    # srun --unbuffered gives a job a terminal that nobody watches: write plain lines to its log.
    with Reporter(Console(force_terminal=False if options.detached else None)) as reporter:
        for said in filter(None, (watch.begin(), copy(), *followed.describe())):
            reporter.event(said)
        controller = Controller(
            works, made.root, made.backend, made.parallel, reporter, stop, environment=made.environment,
            max_gpu_hours=options.max_gpu_hours, news=news, followed=followed, code=f"{source_digest(source)}@{source}",
            on_choice=lambda: made.record(options.max_gpu_hours),
        )  # fmt: skip
        try:
            controller.run()
        finally:
            note_tested(made.root, made.name, made.rows)
            if said := copy():
                reporter.event(said)
    return controller.budget_spent


def conclude(made: Launch, options: argparse.Namespace, works: Sequence[RowWork], *, budget_spent: bool) -> int:
    """Report failures, print the table and return the exit code."""
    from sweeps.actions.detach import dismiss_successors
    from sweeps.actions.dry_run import say_next

    failed = failures_of(works, ended=not budget_spent)
    for line in failed:
        print(printable(line), file=sys.stderr)
    print_table(made.root, made.name, list(dict.fromkeys(row.name for row in made.rows)) if options.rows else None)
    if options.detached:
        dismiss_successors(made)
    if budget_spent:
        spent = f"--max-gpu-hours {options.max_gpu_hours:g} is spent and runs are left"
        print(f"{spent}: raise it and run the same command again to resume")
        return EXIT_BUDGET
    say_next(made.study, made.root, made.name, succeeded=not failed)
    return 1 if failed else 0


def failures_of(works: Sequence[RowWork], *, ended: bool) -> list[str]:
    """Describe the failures of rows that will not be retried: one line for replicates that failed alike.

    Trials and seeds are included once all work of the study has `ended`.
    """
    from mmkd.formatting import replicates_title

    alike: dict[tuple[str, str], list[int]] = {}
    for work in works:
        if how := _failure_of(work, ended=ended):
            alike.setdefault((work.row.name, how), []).append(work.row.replicate)
    return [f"row {replicates_title(name, replicates)}{how}" for (name, how), replicates in alike.items()]


def _failure_of(work: RowWork, *, ended: bool) -> str:
    """Describe how a row failed, to be put behind its title; empty if it did not."""
    from mmkd.formatting import count

    if work.failed:
        return f" failed: {work.failed}"
    if not ended:
        return ""
    said = []
    if trials := work.failed_trials():
        said.append(f"{count(len(trials), 'trial')} failed (no retries left; --retry failed retries them)")
    if seeds := work.failed_seeds():
        which = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
        said.append(f"{which} failed (no retries left; the same command retries them)")
    return f": {'; '.join(said)}" if said else ""


def look_after(options: argparse.Namespace) -> int:
    """Run the action requested for a launched study and return the exit code.

    Raises:
        UserError: there is no such study, or the action is not possible now.
    """
    from sweeps.launched_study import find_recorded

    if options.each_replicate and not options.status:
        raise UserError("--each-replicate: allowed only with --status")
    if options.dry_run and not options.clean:
        raise UserError("--dry-run: allowed only with a launch or with --clean")
    if options.rows and not options.status:
        raise UserError("--rows: --cancel, --clean and --archive act on the whole study; leave --rows out")
    study = find_recorded(options)
    if options.status:
        from sweeps.actions.status import show_status

        show_status(study, each_replicate=options.each_replicate)
        return 0
    if options.cancel:
        from sweeps.actions.cancel import cancel

        return cancel(study, load_site(options.site, site_changes(options)))
    if options.archive:
        from sweeps.actions.archive import archive

        return archive(study, options.archive)
    from sweeps.actions.clean import clean

    return clean(study, dry_run=options.dry_run)


def dispatch(options: argparse.Namespace) -> int:
    """Do what the options request and return the exit code.

    Raises:
        UserError: it cannot be done.
    """
    if options.list:
        for name in study_names():
            print(f"{name:<24} {read_toml(find_study(name)).get('title', '')}")
        return 0
    if options.study is None:
        raise UserError("name a --study; --list shows them, --help has examples")
    if options.status or options.cancel or options.clean or options.archive:
        return look_after(options)
    return launch(options)


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command."""
    parser = make_parser(prog)
    parser.set_defaults(arguments=sys.argv[1:] if arguments is None else arguments)
    return run_command(parser, dispatch, arguments, resumable=True)


if __name__ == "__main__":
    sys.exit(main())
