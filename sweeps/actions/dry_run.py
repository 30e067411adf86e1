"""Implement --dry-run, and print the plan of a study at launch."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmkd.attempts import last_attempt
from mmkd.data import DatasetInfo
from mmkd.data.splits import missing_classes
from mmkd.errors import UserError
from mmkd.finished import line_name, read_finished
from mmkd.formatting import columns, count, shortened
from mmkd.result_file import ResultError, read_summary
from mmkd.rundir import Root, RowDir, TrialDir
from mmkd.terminal import one_line
from slurm.backend import Job, SubmissionDelayed, SubmissionRefused
from slurm.slurm_backend import SlurmBackend
from sweeps.actions.detach import controller_script
from sweeps.actions.estimate import estimates_of, left_of, probe, show_estimate
from sweeps.controller.job_names import job_tag
from sweeps.controller.make_job import make_job
from sweeps.controller.slurm_workers import WorkerBackend
from sweeps.controller.tasks import Task
from sweeps.launched_study import without_end
from sweeps.nearest_row import nearest_neighbour, stored_identities
from sweeps.resolve import Launch
from sweeps.rows import Row, expected_teachers, replicates_by_name
from sweeps.search_space import Range
from sweeps.study_file import StudyFile
from sweeps.teacher_search import TeacherSearch


def dry_run(made: Launch, options: argparse.Namespace) -> int:
    """Print the remaining work, its estimated cost and, on Slurm, the job scripts. Nothing runs."""
    left = [left_of(row, retry_failed=options.retry == "failed") for row in made.rows]
    estimates = estimates_of(left, made.root, made.backend)
    if options.probe:
        estimates = probe(left, estimates, made.environment)
    job = example_job(made.rows[0], made.root, made.environment)
    show_estimate(left, estimates, made.parallel, made.backend.gpus_for(job))
    show_script(made, job)
    if options.detach:
        print(f"script    of the controller\n\n{controller_script(made, options)}")
    return 0


def show_plan(
    study: StudyFile, rows: Sequence[Row], root: Root, profile: str, backend: str, parallel: int, most: int = 3
) -> None:
    """Print the study, its paths, each row with its search space and progress, and the splits of `most` replicates."""
    info, student = rows[0].info, rows[0].student
    print(f"{study.title}")
    sizes = ", ".join(f"{n} {split}" for split, n in info.sizes.items())
    if info.split is not None:
        sizes = f"{count(sum(info.sizes.values()), 'sample')}, split in each replicate as shown below"
    print(f"data      {info.source}: {sizes}; student of {study.primary}")
    print(f"networks  profile {profile}; {count(student.training.epochs, 'epoch')}")
    print(f"runs on   {backend}, {parallel} at a time, {count(student.threads, 'thread')} each")
    print(f"results   {root.path}")
    stored = stored_identities(root)
    for replicates in replicates_by_name(rows).values():
        _show_row(replicates, stored)
    teachers = {directory for row in rows for directory in expected_teachers(row)}
    trained = sum(directory.result.exists() for directory in teachers)
    if teachers:
        each = "in each replicate " if study.replicates > 1 else ""
        search = next((row.search for row in rows if row.search), None)
        of_tuning = f"{search.settings.trials} to choose one from" if search else "one for tuning"
        print(f"teachers  {len(teachers)} ({each}{of_tuning} and one per seed), {trained} trained")
        if search:
            print(f"          {describe_search(search)}")
    show_splits({row.replicate: row.info for row in rows}, study.splits.scheme, most)
    if backend != "slurm":
        runs = (run for row in rows for run in (*row.directory.trials(), *row.directory.final_runs()))
        warn_of_slurm_jobs([*teachers, *runs])


def _show_row(replicates: Sequence[Row], stored: Mapping[RowDir, Mapping[str, Any]]) -> None:
    """Print a row: what it is, its budget, its progress, and how it differs from the most similar one if it is new."""
    row, several = replicates[0], len(replicates) > 1
    done, seconds = map(sum, zip(*(finished(one.directory) for one in replicates), strict=True))
    print(f"row       {row.name}: {row.label}")
    print(f"          {describe_method(row)}{f'; compared with {row.control}' if row.control else ''}")
    print(f"          {describe_space(row)}")
    finalists = _describe_finalists(row)
    print(
        f"          {f'{len(replicates)} replicates of ' if several else ''}{count(row.trials, 'trial')} "
        f"({row.sampler} sampler){finalists}; "
        f"best by valid {row.selection} retrained on {count(row.seeds, 'fresh seed')}; "
        f"{count(done, 'run')} done, {seconds:.0f} s spent"
    )
    for line, number in Counter(line for one in replicates for line in beyond_budget(one)).items():
        where = f"in {count(number, 'replicate')}: " if several else ""
        print(f"          {where}{line}")
    new = [one for one in replicates if one.directory not in stored]
    if several and 0 < len(new) < len(replicates):
        print(f"          {count(len(new), 'replicate')} of them new")
    elif new and (found := nearest_neighbour(row, stored)):
        other, lines = found
        print(f"          new; differs from {other.path.name} in {shortened(lines)}")


def _describe_finalists(row: Row) -> str:
    if row.finalists is None:
        return ""
    return f", {count(row.budget - row.trials, 'run')} of the best {row.finalists.best} on more seeds"


def show_splits(infos: Mapping[int, DatasetInfo], scheme: str, most: int) -> None:
    """Print groups and samples of each part in `most` replicates, and the classes that a part lacks in any.

    Args:
        infos: the data with the parts of each replicate.
        scheme: how they were drawn.
        most: number of replicates to show.
    """
    if scheme != "file":
        parts = list(infos[0].sizes)
        lines = [(str(replicate), *(_describe_part(info, part) for part in parts)) for replicate, info in infos.items()]
        for number, line in enumerate(columns([(f"{scheme}, replicate", *parts), *lines[:most]])):
            print(f"{'' if number else 'splits':<10}{line}")
        if len(lines) > most:
            print(f"          and {len(lines) - most} more; --dry-run shows all")
    elif len(infos) > 1:
        print("splits    the data file's own, the same in each replicate")
    shown = infos if scheme != "file" else {0: infos[0]}
    lacking = [
        f"{f'replicate {replicate}: ' if scheme != 'file' else ''}{part} has no sample of {shortened(classes, ', ')}"
        for replicate, info in shown.items()
        for part, classes in missing_classes(info).items()
    ]
    if lacking:
        print(f"warning   {shortened(lacking, most=most)}")


def _describe_part(info: DatasetInfo, part: str) -> str:
    """`1,200 samples of 14 groups`; a few groups by name."""
    groups = list(info.group_counts[part])
    named = ", ".join(groups)
    of = named if len(groups) <= 2 and len(named) <= 24 else count(len(groups), "group")
    return f"{count(info.sizes[part], 'sample')} of {of}"


def beyond_budget(row: Row) -> list[str]:
    """Say how many trials and final runs exist, where there are more than the budget asks for."""
    trials = sum(1 for _ in row.directory.trials())
    seeds = len({run.path.name.partition("-")[0] for run in row.directory.final_runs() if not run.superseded.exists()})
    said = []
    if trials > row.budget:
        said.append(f"{trials} tuning trials exist, more than the {row.budget} asked for: all are kept, and all count")
    if seeds > row.seeds:
        said.append(f"final runs on {seeds} seeds exist: all are kept, and the table uses seeds 1 to {row.seeds}")
    return said


def warn_of_slurm_jobs(directories: Iterable[TrialDir]) -> None:
    """Warn about jobs that an earlier launch left on Slurm."""
    sent = sum(last_attempt(directory).submitted.backend == "slurm" for directory in without_end(directories))
    if sent:
        print(
            f"warning   {count(sent, 'job')} of an earlier launch may still be pending or running on Slurm; a local "
            "launch sees only their files: use --cluster slurm to query Slurm"
        )


def describe_method(row: Row) -> str:
    """Describe method, level, pairing and settings in one line."""
    distillation = row.student.distillation
    level = f" at {distillation.level}" if distillation.level else ""
    settings = ", ".join(f"{name} = {value}" for name, value in distillation.settings.items())
    return f"{distillation.method}{level}, pairing {row.student.pairing}" + (f"; {settings}" if settings else "")


def describe_space(row: Row) -> str:
    """Describe the row's search space in one line: what is tuned, and the values of the rest."""
    tuned = [describe_range(name, r) for name, r in row.ranges.items()]
    distillation = row.student.distillation
    rest = {name: getattr(distillation, name) for name in row.method.tunes}
    values = {name: value for name, value in {**rest, **row.fixed}.items() if name not in row.ranges}
    fixed = f"; fixed: {', '.join(f'{name} = {value:g}' for name, value in values.items())}" if values else ""
    return f"tunes {', '.join(tuned) or 'nothing: all its trials train the same configuration'}{fixed}"


def describe_search(search: TeacherSearch) -> str:
    """Describe how teachers are tuned in one line."""
    tuning = search.settings
    names = ("learning_rate", "dropout", "augmentation")
    ranges = (describe_range(name.replace("_", " "), getattr(tuning, name)) for name in names)
    readouts = f"readout {' or '.join(tuning.readout)}"
    return f"the best of {tuning.trials} by valid {search.selection}: {', '.join([*ranges, readouts])}"


def describe_range(name: str, space: Range) -> str:
    """Describe a search range."""
    return f"{name} {space.low:g} to {space.high:g}{' (log)' if space.log else ''}"


def finished(row: RowDir) -> tuple[int, float]:
    """Count the finished runs of a row and sum their seconds."""
    lines = read_finished(row).trials
    others = [d for d in [*row.trials(), *row.final_runs()] if line_name(d) not in lines]
    spent = [seconds for directory in others if (seconds := _seconds(directory)) is not None]
    spent += [line.seconds for line in lines.values()]
    return len(spent), sum(spent)


def _seconds(directory: TrialDir) -> float | None:
    try:
        return read_summary(directory.result).seconds
    except (FileNotFoundError, ResultError):
        return None


def example_job(row: Row, root: Root, environment: Mapping[str, str]) -> Job:
    """Make the job of the row's first trial."""
    name = f"{row.directory.path.name}.t0"
    task = Task(name, f"{row.title} trial 0", "tuning", row.directory.trial(0), row.student)
    return make_job(task, 1, job_tag(root), environment)


def show_script(made: Launch, job: Job) -> None:
    """On Slurm, print an example script: that of `job`, or that of the workers."""
    if isinstance(made.backend, WorkerBackend):
        settings = made.backend.settings
        at_once = count(settings.trials_per_worker, "trial")
        print(f"script    of {count(settings.workers, 'worker')}; each runs one trial after another, {at_once} at once")
        if peaks := [peak for row in made.rows for peak in _peaks(row.directory)]:
            needed = settings.trials_per_worker * max(peaks)
            print(
                f"memory    finished trials took up to {max(peaks):.0f} MB each; {at_once} take {needed:.0f} MB at most"
            )
        print(f"\n{made.backend.worker_script()}")
        ask_slurm(made.backend, made.backend.worker_job())
    elif isinstance(made.backend, SlurmBackend):
        print(
            "script    example: the first trial; other trials differ in name and directory, retries also in options\n"
        )
        print(made.backend.script(job))
        ask_slurm(made.backend, job)


def ask_slurm(backend: SlurmBackend, job: Job) -> None:
    """Print what Slurm says of a job that is not submitted: when and where it would start.

    Raises:
        UserError: it would refuse the job.
    """
    try:
        print(f"slurm     {backend.test_only(job)}")
    except SubmissionDelayed as delay:
        print(f"slurm     cannot say now: {one_line(delay)}")
    except SubmissionRefused as refusal:
        raise UserError(str(refusal)) from None


def _peaks(row: RowDir) -> list[float]:
    """The largest memory of each trial's last attempt, in MB, where it was recorded."""
    ran = (last_attempt(directory).ran for directory in (*row.trials(), *row.final_runs()))
    return [record.peak_mb for record in ran if record.peak_mb is not None]


def say_next(study: StudyFile, root: Root, name: str, *, succeeded: bool) -> None:
    """Print where the results are and, after a success on synthetic data, how to use real data."""
    print(f"Results saved to {root.path} (rows, teachers, studies/{name}.json).")
    if succeeded and study.data.startswith("synthetic:"):
        print(
            "This was synthetic data. To use your own: mmkd data import --help, then\n"
            f"mmkd launch --study {name} --data YOUR.h5 --primary MODALITY --replicates 8 --trials 6"
        )
