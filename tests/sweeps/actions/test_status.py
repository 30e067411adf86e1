"""How a study stands: told at any time, by anybody, without a trace; and which options do not go together."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import FakeBackend, fake_result
from launched import after, launched, planned, tree

from mmkd.attempts import record_run, record_submission
from mmkd.failures import Failure
from mmkd.files import write_json
from mmkd.result_file import Status
from mmkd.rundir import TrialDir
from slurm.backend import Job
from sweeps.actions.status import show_status
from sweeps.controller.row import RowWork
from sweeps.controller.stopping import Stop
from sweeps.launch import main
from sweeps.launched_study import RecordedStudy, without_end


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]):
    """How a study stands, as printed."""

    def show(study: RecordedStudy) -> str:
        capsys.readouterr()
        show_status(study)
        return capsys.readouterr().out

    return show


def cells(said: str, row: str) -> list[str]:
    """A row's line of the status, cell by cell."""
    return next(line for line in said.splitlines() if line.startswith(f"{row} ")).split(maxsplit=7)


def test_a_finished_study_shows_budgets_best_and_teachers(said, study_file: Path, tmp_path: Path) -> None:
    status = said(launched(study_file, tmp_path))
    assert cells(status, "no_kd") == ["no_kd", "3/3", "0", "0", "0", "0", "2/2", "loss 0.0000 (trial 0)"]
    assert "teachers    3 of 3 trained" in status
    assert "controller  none is at work" in status
    assert "jobs        none" in status


def test_open_failed_and_diverged_trials_are_told_apart(said, study_file: Path, tmp_path: Path) -> None:
    def fails(job: Job, attempt: int) -> Failure | None:
        if job.command[3].endswith("trials/1"):
            fake_result(TrialDir(Path(job.command[3])), Status.DIVERGED)
            return Failure.CANCELLED
        return Failure.ERROR if job.command[3].endswith("trials/2") else None

    backend = FakeBackend(fails)
    status = said(launched(study_file, tmp_path, "defaults.trials=5", backend=backend, stop=after(6, Stop.WITH_JOBS)))
    name, reported, still_open, running, _, failed, *_ = cells(status, "no_kd")
    assert (name, running) == ("no_kd", "0")
    assert int(reported.split("/")[0]) + int(still_open) <= 5
    assert failed == "2"
    assert "(1 diverged)" in status


def test_it_names_the_controller_and_reads_beside_it_without_a_trace(said, study_file: Path, tmp_path: Path) -> None:
    study = launched(study_file, tmp_path, stop=after(3, Stop.WITHOUT_JOBS), backend=FakeBackend(delay=99))
    works = [RowWork(row, 2, study_file) for row in planned(study_file, tmp_path)]
    before = tree(study.root.path)
    status = said(study)
    assert tree(study.root.path) == before
    assert f"controller  process {os.getpid()} on {socket.gethostname()}, last heartbeat 0 s ago\n" in status
    works[1].close()
    assert "ago; of no_kd alone" in said(study)
    works[0].close()


def test_a_controller_that_died_is_told_from_one_that_lives(said, study_file: Path, tmp_path: Path) -> None:
    study = launched(study_file, tmp_path, "defaults.trials=1", stop=after(1, Stop.WITH_JOBS))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lock = study.rows[0].directory.lock
    write_json(lock, {"host": socket.gethostname(), "pid": dead.pid})
    assert "not responding" in said(study)
    write_json(lock, {"host": "elsewhere", "pid": 1})
    assert "process 1 on elsewhere, last heartbeat 0 s ago" in said(study)
    os.utime(lock, (time.time() - 600, time.time() - 600))
    assert "process 1 on elsewhere, not responding (last heartbeat 600 s ago)" in said(study)


def test_gpu_hours_of_attempts_that_have_not_ended_are_counted(said, study_file: Path, tmp_path: Path) -> None:
    study = launched(study_file, tmp_path, stop=after(3, Stop.WITHOUT_JOBS), backend=FakeBackend(delay=99))
    trial = without_end(study.directories())[0]
    record_submission(trial, 1, gpus=2)
    record_run(trial, 1, started=time.time() - 1800, host=socket.gethostname())
    record_submission(study.rows[0].directory.trial(7), 1, gpu_seconds=7200.0)
    assert "GPU-hours   3.00, of which 1.00 by attempts that have not ended" in said(study)


def test_a_journal_that_is_being_written_is_read_as_far_as_it_goes(said, study_file: Path, tmp_path: Path) -> None:
    study = launched(study_file, tmp_path)
    with study.rows[0].directory.journal.open("ab") as journal:
        journal.write(b'{"op_code": 5, "trial_i')
    assert cells(said(study), "no_kd")[1] == "3/3"


def test_it_needs_neither_torch_nor_the_data_nor_the_study_file(study_file: Path, tmp_path: Path) -> None:
    launched(study_file, tmp_path)
    study_file.unlink()
    arguments = ["--study", "tiny", "--root", str(tmp_path / "runs"), "--status"]
    code = f"import sys; from sweeps.launch import main; sys.exit(main({arguments}) or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tiny: a tiny study" in done.stdout


def test_a_study_that_was_never_launched_is_refused_with_those_that_were(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launched(study_file, tmp_path, name="other")
    command = ["--study", str(study_file), "--root", str(tmp_path / "runs"), "--status"]
    assert main(command) == 2
    assert "no study 'tiny' was launched there (there are: other)" in capsys.readouterr().err
    assert main([*command, "--as", "other"]) == 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--detach"], "--detach: needs Slurm"),
        (["--snapshot", "--cluster", "debug"], "--snapshot: --cluster debug runs trials in this process"),
        (["--probe"], "--probe: allowed only with --dry-run"),
        (["--cancel", "--dry-run"], "--dry-run: allowed only with a launch or with --clean"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], complaint: str
) -> None:
    where = ["--study", str(study_file), "--root", str(tmp_path / "runs"), "--cluster", "local"]
    assert main([*where, *options]) == 2
    assert complaint in capsys.readouterr().err
