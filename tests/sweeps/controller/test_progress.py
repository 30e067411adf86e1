"""What the user sees while a study runs."""

import io
from pathlib import Path

import pytest
from controlled import rows_of
from rich.console import Console

from mmkd.metrics_log import append_metrics
from mmkd.rundir import RowDir
from sweeps.controller.progress import SHOWN, Reporter
from sweeps.controller.tasks import Task
from sweeps.rows import TUNING_SEED


@pytest.fixture
def tasks(study_file: Path, tmp_path: Path) -> list[Task]:
    row = rows_of(study_file, tmp_path)["no_kd"]
    config = row.config(row.default(), TUNING_SEED)
    directories = [RowDir(tmp_path).trial(number) for number in range(SHOWN + 3)]
    return [Task(f"t{n}", f"no_kd trial {n}", "tuning", d, config) for n, d in enumerate(directories)]


def progress(tasks: list[Task]) -> str:
    output = io.StringIO()
    with Reporter(Console(file=output)) as reporter:
        reporter.progress(30, tasks)
    return output.getvalue()


def test_progress_tells_each_running_trials_epochs_and_accuracy(tasks: list[Task]) -> None:
    tasks[1].directory.path.mkdir(parents=True)
    append_metrics(tasks[1].directory, {"epoch": 1, "valid_accuracy": 0.625})
    said = progress(tasks[:2])
    assert "30 runs to go; running no_kd trial 0 (epoch 0/3), no_kd trial 1 (epoch 1/3, accuracy 0.625)\n" in said


def test_pending_jobs_are_counted_apart_with_their_reasons(tasks: list[Task]) -> None:
    output = io.StringIO()
    with Reporter(Console(file=output, width=200)) as reporter:
        reporter.progress(30, tasks[:1], ["Priority", "Resources", "Priority"])
    assert "running no_kd trial 0 (epoch 0/3); 3 pending (2 Priority, 1 Resources)\n" in output.getvalue()


def test_of_many_running_trials_the_first_are_named_and_the_others_counted(tasks: list[Task]) -> None:
    said = progress(tasks)
    assert f"trial {SHOWN - 1} (epoch 0/3), 3 more\n" in said
    assert f"trial {SHOWN} " not in said
