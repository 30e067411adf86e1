"""Watching is cheap: what cannot have changed is not read again, and nothing waits for squeue."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from watched_roots import WatchedRoot, text

from mmkd.metrics_log import tail_metrics
from mmkd.result_file import Status
from slurm import monitor
from slurm.monitoring import collecting
from slurm.monitoring.collecting import Collector
from slurm.monitoring.overview import make_overview

SCRIPT = Path(monitor.__file__)


def test_a_finished_trial_is_read_once(watched: WatchedRoot) -> None:
    row = watched.row("crd")
    watched.finish(row.trial(0), loss=0.5)
    watched.study()
    collector = Collector(watched.root, None)
    (first,) = collector.look().trials
    for path in (row.trial(0).result, row.trial(0).controller_record(1), row.trial(0).job_record(1)):
        path.unlink()

    assert collector.look().trials == (first,)


def test_a_running_trial_is_read_again_only_when_something_has_changed(
    watched: WatchedRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = watched.row("crd").trial(0)
    watched.run(trial, epochs=1)
    watched.study()
    read: list[str] = []
    genuine = collecting.read_trial
    monkeypatch.setattr(collecting, "read_trial", lambda directory: read.append(directory.name) or genuine(directory))
    for path in (trial.path, trial.attempts, trial.metrics):
        os.utime(path, (0, 0))  # long ago: a fresh stamp may hide a second change
    collector = Collector(watched.root, None)
    for _ in range(3):
        collector.look()
    assert len(read) == 1

    watched.run(trial, epochs=1)  # another line
    assert [len(t.curve) for t in collector.look().trials] == [2]


def test_what_is_new_while_we_watch_is_found(watched: WatchedRoot) -> None:
    row = watched.row("crd")
    watched.study()
    collector = Collector(watched.root, "study")
    assert collector.look().trials == ()

    watched.run(row.trial(0))
    assert [trial.entry.name for trial in collector.look().trials] == ["t0"]
    watched.finish(row.trial(0), loss=0.5)
    watched.run(row.trial(1))
    assert [(t.entry.name, t.status) for t in collector.look().trials] == [("t0", Status.COMPLETE), ("t1", None)]


def test_a_large_root_is_shown_before_all_of_it_is_read_latest_trials_first(watched: WatchedRoot) -> None:
    row = watched.row("crd", trials=30)
    for number in range(30):
        watched.announce(row.trial(number))
    watched.study()
    collector = Collector(watched.root, None)

    first = collector.look(0)

    assert ([trial.entry.name for trial in first.trials], first.unread) == (["t29"], 29)
    assert "reading: 29 trials not looked at yet" in text(make_overview(first, None))
    assert collector.look(0).unread == 28
    assert collector.look().unread == 0


def test_of_a_metrics_file_of_a_gigabyte_the_end_is_read(watched: WatchedRoot) -> None:
    trial = watched.row("crd").trial(0)
    watched.run(trial, epochs=5)
    lines = trial.metrics.read_bytes()
    with trial.metrics.open("wb") as file:
        file.seek(10**9)  # a hole, which takes no disk
        file.write(b"\n" + lines + b'{"epoch": 6, "valid_lo')
    watched.study()

    began = time.monotonic()
    found = tail_metrics(trial)

    assert [line["epoch"] for line in found] == [1, 2, 3, 4, 5]
    assert time.monotonic() - began < 0.5


def test_neither_torch_nor_pandas_nor_optuna_is_imported(watched: WatchedRoot) -> None:
    watched.finish(watched.row("crd").trial(0), loss=0.5)
    watched.study()
    command = [sys.executable, "-X", "importtime", str(SCRIPT), "--root", str(watched.root.path)]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert imported.isdisjoint({"torch", "pandas", "optuna", "submitit", "matplotlib"})
    assert "h5py" in imported


def test_help_needs_neither_the_readers_of_files_nor_the_screen() -> None:
    command = [sys.executable, "-X", "importtime", str(SCRIPT), "--help"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert imported.isdisjoint({"numpy", "h5py", "pydantic", "rich"})
