"""Implement --dry-run, and print the plan of a study at launch."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence

from mmkd.attempts import last_attempt
from mmkd.distillation import load_method
from mmkd.finished import line_name, read_finished
from mmkd.formatting import count
from mmkd.result_file import ResultError, read_summary
from mmkd.rundir import Root, RowDir, TrialDir
from slurm.backend import Job
from slurm.slurm_backend import SlurmBackend
from sweeps.actions.detach import controller_script
from sweeps.actions.estimate import estimates_of, left_of, probe, show_estimate
from sweeps.controller.job_names import job_tag
from sweeps.controller.jobs import make_job
from sweeps.controller.row import Task
from sweeps.controller.slurm_workers import WorkerBackend
from sweeps.launched_study import without_end
from sweeps.resolve import Launch
from sweeps.rows import TUNING_SEED, Row, nearest_neighbour, teacher_directories
from sweeps.study_file import StudyFile


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


def show_plan(study: StudyFile, rows: Sequence[Row], root: Root, profile: str, backend: str, parallel: int) -> None:
    """Print the study, its paths, and each row with its search space and progress."""
    info, student = rows[0].info, rows[0].student
    print(f"{study.title}")
    sizes = ", ".join(f"{n} {split}" for split, n in info.sizes.items())
    print(f"data      {info.source}: {sizes}; student of {study.primary}")
    print(f"networks  profile {profile}; {count(student.training.epochs, 'epoch')}")
    print(f"runs on   {backend}, {parallel} at a time, {count(student.threads, 'thread')} each")
    print(f"results   {root.path}")
    for row in rows:
        done, seconds = finished(row.directory)
        print(f"row       {row.name}: {row.label}")
        print(f"          {describe_method(row)}")
        print(f"          {describe_space(row)}")
        print(
            f"          {count(row.trials, 'trial')} ({row.sampler} sampler); best by valid {row.selection} retrained "
            f"on {count(row.seeds, 'fresh seed')}; {count(done, 'run')} done, {seconds:.0f} s spent"
        )
        for line in beyond_budget(row):
            print(f"          {line}")
        if not row.directory.row.exists() and (found := nearest_neighbour(row)):
            other, lines = found
            shown = "; ".join(lines[:4]) + (f"; and {len(lines) - 4} more" if len(lines) > 4 else "")
            print(f"          new; differs from {other.path.name} in {shown}")
    teachers = {directory for row in rows for directory in teacher_directories(row)}
    trained = sum(directory.result.exists() for directory in teachers)
    if teachers:
        print(f"teachers  {len(teachers)} (one for tuning and one per seed), {trained} trained")
    if backend != "slurm":
        runs = (run for row in rows for run in (*row.directory.trials(), *row.directory.final_runs()))
        warn_of_slurm_jobs([*teachers, *runs])


def beyond_budget(row: Row) -> list[str]:
    """Say how many trials and final runs exist, where there are more than the budget asks for."""
    trials = sum(1 for _ in row.directory.trials())
    seeds = len({run.path.name.partition("-")[0] for run in row.directory.final_runs() if not run.superseded.exists()})
    said = []
    if trials > row.trials:
        said.append(f"{trials} tuning trials exist, more than the {row.trials} asked for: all are kept, and all count")
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
    tuned = [f"{name} {r.low:g} to {r.high:g}{' (log)' if r.log else ''}" for name, r in row.ranges.items()]
    distillation = row.student.distillation
    rest = {name: getattr(distillation, name) for name in load_method(distillation.method).tunes}
    values = {name: value for name, value in {**rest, **row.fixed}.items() if name not in row.ranges}
    fixed = f"; fixed: {', '.join(f'{name} = {value:g}' for name, value in values.items())}" if values else ""
    return f"tunes {', '.join(tuned) or 'nothing: all its trials train the same configuration'}{fixed}"


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
    config = row.config(row.default(), TUNING_SEED)
    name = f"{row.directory.path.name}.t0"
    task = Task(name, f"{row.name} trial 0", "tuning", row.directory.trial(0), config)
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
    elif isinstance(made.backend, SlurmBackend):
        print(
            "script    example: the first trial; other trials differ in name and directory, retries also in options\n"
        )
        print(made.backend.script(job))


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
            f"mmkd launch --study {name} --data YOUR.h5 --primary MODALITY --trials 30 --seeds 5"
        )
