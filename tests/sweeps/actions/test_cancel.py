"""Ending a study's jobs so that they can go on: with its controller and without one, and never somebody else's."""

import os
import socket
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from fakes import FakeBackend
from launched import after, launched

from mmkd.attempts import read_attempts, record_submission
from mmkd.errors import UserError
from mmkd.lock import FileLock
from mmkd.rundir import Root, TrialDir
from slurm.backend import Job
from slurm.local_backend import LocalBackend
from sweeps.actions.cancel import cancel
from sweeps.controller.row_locks import take_rows
from sweeps.controller.stopping import Stop
from sweeps.launch import main
from sweeps.launched_study import RecordedStudy, read_recorded, without_end
from sweeps.site_file import Site

SLEEPING = "import time; time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"


@pytest.fixture
def study(study_file: Path, tmp_path: Path) -> RecordedStudy:
    """A study whose controller left while its first jobs ran."""
    return launched(study_file, tmp_path, stop=after(3, Stop.WITHOUT_JOBS), backend=FakeBackend(delay=99))


def with_job(study: RecordedStudy, code: str = SLEEPING) -> tuple[TrialDir, psutil.Process]:
    """A trial of the study whose job is a process of this host, submitted by a controller that is gone."""
    trial = without_end(study.rows[0].runs())[0]
    backend = LocalBackend()
    identifier = backend.submit(Job("some-job", (sys.executable, "-c", code), trial.log(1))).id
    record_submission(trial, 1, backend="local", name="some-job", job=identifier, gpus=0)
    for other in without_end(study.directories()):
        if other != trial:
            record_submission(other, 1, end="preempted")
    return trial, psutil.Process(backend._children[identifier].pid)


def test_without_a_controller_the_jobs_end_and_a_relaunch_goes_on(
    study: RecordedStudy, study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial, process = with_job(study)
    assert main(["--study", "tiny", "--root", str(study.root.path), "--cancel"]) == 0
    assert process.wait(timeout=5) != 0
    assert "run the launch command again to resume" in capsys.readouterr().out
    assert without_end(study.directories()) == []
    assert read_attempts(trial)[-1].end == "preempted"
    assert not list(study.root.path.rglob("*.lock"))
    launched(study_file, tmp_path)
    assert trial.result.exists()


def test_a_living_controller_is_asked_to_end_with_its_jobs_and_waited_for(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_file = tmp_path / "runs" / "studies" / "tiny.stop"

    def asked() -> Stop | None:
        time.sleep(0.01)
        return Stop.WITH_JOBS if stop_file.exists() else None

    options = {"backend": FakeBackend(delay=10**6), "stop": asked}
    controller = threading.Thread(target=launched, args=(study_file, tmp_path), kwargs=options)
    controller.start()
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("runs/rows/*/trials/0/attempt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert main(["--study", "tiny", "--root", str(tmp_path / "runs"), "--cancel"]) == 0
    controller.join(timeout=10)
    assert not controller.is_alive()
    assert f"process {os.getpid()} on {socket.gethostname()}" in capsys.readouterr().out
    assert not stop_file.exists()
    study = read_recorded(Root(tmp_path / "runs"), "tiny")
    assert {read_attempts(d)[-1].end for d in study.directories() if d.config.exists()} == {"preempted"}


def test_a_controller_that_does_not_end_is_named_and_its_stop_file_taken_back(study: RecordedStudy) -> None:
    with (
        take_rows(study.row_directories()),
        pytest.raises(UserError, match=r"is held by process \d+ on .*did not end in 0 s"),
    ):
        cancel(study, Site(), patience=0.3)
    assert not study.root.stop("tiny").exists()


def test_a_row_that_another_study_works_on_is_left_alone(
    study: RecordedStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    trial, process = with_job(study)
    with take_rows([study.rows[0].directory]):
        assert cancel(study, Site(), patience=5.0) == 0
    assert "skipped: " in capsys.readouterr().out
    assert process.is_running()
    assert trial in without_end(study.directories())
    process.kill()


def test_a_controller_of_some_rows_is_waited_for_although_other_rows_are_free(study: RecordedStudy) -> None:
    with (
        FileLock(study.rows[0].directory.lock, purpose=study.name),
        pytest.raises(UserError, match=r"did not end in 0 s"),
    ):
        cancel(study, Site(), patience=0.3)


def test_a_job_of_another_host_is_reported_and_not_declared_dead(
    study: RecordedStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    trial, process = with_job(study)
    record_submission(trial, 1, job="elsewhere:12:1.00:")
    assert cancel(study, Site(), patience=0.5) == 1
    assert "runs on elsewhere, which this machine cannot reach" in capsys.readouterr().out
    assert trial in without_end(study.directories())
    process.kill()


def test_a_job_that_died_with_its_controllers_process_is_left_to_a_relaunch(study: RecordedStudy) -> None:
    for trial in without_end(study.directories()):
        record_submission(trial, 1, backend="debug", job="debug:1:0")
    assert cancel(study, Site(), patience=0.5) == 0


def test_a_job_that_does_not_listen_is_reported_and_left_to_a_second_try(
    study: RecordedStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    trial, process = with_job(study, DEAF)
    deadline = time.monotonic() + 10
    while "deaf" not in trial.log(1).read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert cancel(study, Site(), patience=0.5) == 1
    assert "has not ended after 0 s" in capsys.readouterr().out
    process.kill()
    process.wait()
    assert cancel(study, Site(), patience=5.0) == 0
