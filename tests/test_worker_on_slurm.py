"""A worker that outlives its controller, as a process of this machine: what it takes, records and leaves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from survival import wait_for

from mmkd import records
from mmkd import worker as worker_module
from mmkd.attempts import read_attempts
from mmkd.files import write_text
from mmkd.forked_trials import Running
from mmkd.records import AssignmentRecord, ProcessRecord, WorkerRecord, find_record
from mmkd.rundir import TrialDir, WorkerDir
from mmkd.worker import Beats

Started = tuple[WorkerDir, subprocess.Popen[bytes]]


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Any]:
    begun: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> Started:
        command = [sys.executable, "-m", "mmkd.worker", str(tmp_path), "--slots", "2", "--for", "mine", *options]
        array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "CUDA_VISIBLE_DEVICES": "0,1"}
        begun.append(subprocess.Popen(command, env={**os.environ, **array, "OMP_NUM_THREADS": "1"}))
        worker = WorkerDir(tmp_path / "7_3")
        wait_for("the worker's record", worker.record.exists, 60)
        return worker, begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


def assign(worker: WorkerDir, directory: TrialDir, name: str, **environment: str) -> None:
    write_text(directory.attempt, "1\n")
    directory.log(1).parent.mkdir(parents=True)
    record = AssignmentRecord(
        arguments=(str(directory.path), "--attempt", "1"),
        log=str(directory.log(1)),
        environment={"OMP_NUM_THREADS": "1", **environment},
    )
    records.assign(worker, name, record)


def process_of(worker: WorkerDir, name: str) -> ProcessRecord | None:
    return find_record(worker.process(name), ProcessRecord)


def has_ended(worker: WorkerDir, name: str) -> bool:
    found = process_of(worker, name)
    return found is not None and found.code is not None


def test_trials_share_its_gpus_and_it_ends_when_it_is_told_to(lab: Any, workers: Any) -> None:
    worker, process = workers()
    trials = [lab.place(lab.student(), number) for number in range(3)]
    for number, trial in enumerate(trials):
        assign(worker, trial, f"t{number}")
    wait_for("the first trials", lambda: has_ended(worker, "t0") and has_ended(worker, "t1"), 120)
    wait_for("the third", lambda: has_ended(worker, "t2"), 120)
    ran = [read_attempts(trial)[0].ran for trial in trials]
    assert [record.end for record in ran] == ["complete"] * 3
    assert {ran[0].cuda_visible_devices, ran[1].cuda_visible_devices} == {"0", "1"}
    assert ran[2].started is not None
    assert ran[2].started > min(record.ended or 0.0 for record in ran[:2]), "it has two slots"
    assert all(record.peak_mb for record in ran)
    worker.close.touch()
    assert process.wait(60) == 0
    assert sorted(path.name for path in worker.path.iterdir()) == ["closed", "worker.json"]
    record = find_record(worker.record, WorkerRecord)
    assert record is not None
    assert (record.study, record.slots, record.gpus) == ("mine", 2, 2)
    assert 0 < record.busy < 2 * record.seconds


def test_a_trial_for_the_cpu_sees_no_gpu(lab: Any, workers: Any) -> None:
    worker, _ = workers()
    trial = lab.place(lab.student())
    assign(worker, trial, "t0", CUDA_VISIBLE_DEVICES="")
    wait_for("the trial", lambda: has_ended(worker, "t0"), 120)
    assert read_attempts(trial)[0].ran.cuda_visible_devices == ""


def test_it_ends_when_it_has_had_no_trial_for_a_while(workers: Any) -> None:
    worker, process = workers("--idle", "0.5")
    assert process.wait(60) == 0
    assert worker.closed.exists()


@pytest.mark.parametrize(("number", "end"), [(signal.SIGTERM, "preempted"), (signal.SIGUSR2, "timeout")])
def test_a_signal_reaches_its_trials_which_write_checkpoints(number: int, end: str, lab: Any, workers: Any) -> None:
    worker, process = workers()
    trial = lab.place(lab.teacher(training={"epochs": 100_000}))
    assign(worker, trial, "t0")
    wait_for("an epoch", trial.metrics.exists, 120)
    process.send_signal(number)
    assert process.wait(60) == 0
    assert read_attempts(trial)[0].end == end
    assert trial.checkpoint.exists()


def test_an_assignment_that_comes_too_late_stays_in_the_inbox_until_the_end(lab: Any, workers: Any) -> None:
    worker, process = workers()
    trial = lab.place(lab.teacher(training={"epochs": 100_000}))
    assign(worker, trial, "t0")
    wait_for("an epoch", trial.metrics.exists, 120)
    worker.close.touch()
    wait_for("the worker to close", worker.closed.exists, 60)
    other = lab.place(lab.student(), 7)
    assign(worker, other, "t1")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert read_attempts(other) == []


def test_a_full_worker_notices_the_end_of_a_trial_before_it_looks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = Beats(WorkerDir(tmp_path), "mine", slots=1, gpus=0, idle=60.0, received=[])
    process = subprocess.Popen(["sleep", "0.3"])
    running = {process.pid: Running("t0", ProcessRecord(pid=process.pid, started=0.0), 1, "")}
    monkeypatch.setattr(worker_module, "FULL_SECONDS", 60.0)
    began = time.monotonic()
    assert beats(running)
    assert time.monotonic() - began < 30.0
    assert process.wait() == 0, "the worker leaves the end to `work`, which writes the exit code"
    monkeypatch.setattr(worker_module, "FULL_SECONDS", 0.3)
    with subprocess.Popen(["sleep", "60"]) as other:
        began = time.monotonic()
        beats({other.pid: Running("t1", ProcessRecord(pid=other.pid, started=0.0), 1, "")})
        assert time.monotonic() - began >= 0.3, "the inbox of a full worker is not read all the time"
        other.kill()
