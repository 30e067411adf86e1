"""Implement --probe: run one epoch of each row and teacher that has no estimate, and extrapolate."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmkd.config import Training
from mmkd.errors import UserError
from mmkd.metrics_log import read_metrics
from mmkd.rundir import Root, TrialDir
from sweeps.actions.estimate import Estimate, Left
from sweeps.controller.jobs import last_line, make_job
from sweeps.controller.retries import job_tag
from sweeps.controller.row import Task, teacher_task, write_config
from sweeps.rows import TUNING_SEED, Row


def probe(
    left: Sequence[Left],
    runs: Mapping[str, Estimate | None],
    teachers: Mapping[TrialDir, Estimate | None],
    environment: Mapping[str, str],
) -> tuple[dict[str, Estimate | None], dict[TrialDir, Estimate | None]]:
    """Fill gaps in the estimates by running one epoch of each row without one, and of its teacher.

    Args:
        left: the rows and their remaining runs.
        runs: the estimate per run of each row, by name.
        teachers: the estimate of each missing teacher.
        environment: variables for each job.

    Raises:
        UserError: a run failed; quotes the last line of its log.
    """
    known, known_teachers = dict(runs), dict(teachers)
    with tempfile.TemporaryDirectory(prefix="mmkd-probe-") as folder:
        root = Root(Path(folder))
        measured: dict[TrialDir, Estimate] = {}
        for row in left:
            missing = [t for t in (*row.tuning_teacher, *row.other_teachers) if known_teachers[t] is None]
            unknown = known[row.row.name] is None and (row.tuning or row.confirming)
            if not missing and not unknown:
                continue
            short = _of_one_epoch(row.row)
            if short.teacher is not None:
                task = teacher_task(root, short, TUNING_SEED)
                if task.directory not in measured:
                    measured[task.directory] = _run(task, row.row.teacher_training, root, environment)
                known_teachers |= dict.fromkeys(missing, measured[task.directory])
            if unknown:
                place = TrialDir(root.path / "rows" / row.row.directory.path.name / "trials" / "0")
                task = Task(row.row.name, row.row.name, "tuning", place, short.config(short.default(), TUNING_SEED))
                known[row.row.name] = _run(task, row.row.training, root, environment)
    return known, known_teachers


def _of_one_epoch(row: Row) -> Row:
    one = {"epochs": 1}
    return replace(
        row,
        training=row.training.model_copy(update=one),
        teacher_training=row.teacher_training.model_copy(update=one),
    )


def _run(task: Task, training: Training, root: Root, environment: Mapping[str, str]) -> Estimate:
    """Run a task of one epoch and extrapolate to the epochs of `training`."""
    print(f"probing   {task.label}", flush=True)
    write_config(task)
    job = make_job(task, 0, job_tag(root), environment)
    job.log.parent.mkdir(parents=True)
    began = time.monotonic()
    with job.log.open("wb") as log:
        variables = {**os.environ, **job.environment}
        code = subprocess.run(job.command, stdout=log, stderr=subprocess.STDOUT, env=variables).returncode
    taken = time.monotonic() - began
    lines = read_metrics(task.directory)
    if code or not lines:
        print(job.log.read_text(errors="replace"), file=sys.stderr, end="")
        raise UserError(f"--probe: {task.label} ended with code {code}: {last_line(task.directory, 0)}")
    epoch = float(lines[-1]["seconds"])
    how = f"one epoch run here: {epoch:.1f} s, and {taken - epoch:.1f} s to start and end; {training.epochs} of them"
    return Estimate(taken - epoch + training.epochs * epoch, how)
