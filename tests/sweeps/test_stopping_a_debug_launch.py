"""A launch with --cluster debug ends on Ctrl-C and SIGTERM, with a checkpoint, and the same command resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mmkd.attempts import read_attempts
from mmkd.metrics_log import read_metrics
from mmkd.rundir import Root, TrialDir

LAUNCH = Path(__file__).parents[2] / "sweeps" / "launch.py"
PATIENCE = 120.0


def launch(study_file: Path, root: Root) -> subprocess.Popen[str]:
    where = ["--study", str(study_file), "--root", str(root.path), "--cluster", "debug", "--device", "cpu"]
    budget = ["--trials", "1", "--seeds", "1", "--epochs", "100000", "--rows", "no_kd"]
    return subprocess.Popen(
        [sys.executable, str(LAUNCH), *where, *budget],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(LAUNCH.parents[1])},
    )


def wait_for_epochs(root: Root, process: subprocess.Popen[str], least: int) -> TrialDir:
    """The row's first trial, as soon as it has trained that many epochs."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        for row in root.rows():
            if len(read_metrics(row.trial(0))) >= least:
                return row.trial(0)
        time.sleep(0.02)
    raise AssertionError(f"no trial trains: {process.communicate()[0]}")


def test_ctrl_c_and_sigterm_end_the_launch_and_the_same_command_resumes(study_file: Path, tmp_path: Path) -> None:
    root, done = Root(tmp_path / "runs"), 0
    for number, ends in ((signal.SIGINT, ["preempted"]), (signal.SIGTERM, ["preempted", "preempted"])):
        process = launch(study_file, root)
        trial = wait_for_epochs(root, process, done + 2)
        process.send_signal(number)
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + number, said
        assert "run the same command again to resume" in said
        assert "Traceback" not in said
        assert trial.checkpoint.exists()
        assert [attempt.end for attempt in read_attempts(trial)] == ends
        epochs = [line["epoch"] for line in read_metrics(trial)]
        assert epochs == list(range(1, len(epochs) + 1)), "resumed, not begun again"
        done = len(epochs)
