"""How long a study will take: played through, learnt from runs that were alike, or probed; never made up."""

import time
from pathlib import Path

import pytest
from fakes import FakeBackend
from launched import after, launched, planned

from mmkd.attempts import record_run, record_submission
from mmkd.failures import Failure
from mmkd.rundir import Root, TrialDir
from slurm.backend import Job
from sweeps.actions.estimate import (
    Estimate,
    Left,
    forecast,
    from_finished,
    left_of,
    run_seconds,
    teacher_from_finished,
)
from sweeps.controller.stopping import Stop
from sweeps.launch import main
from sweeps.nearest_row import stored_identities
from sweeps.rows import Row


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "runs")


def timed(directories: list[TrialDir], seconds: float) -> None:
    """Have finished runs' only attempts taken so long, by their own clock; Python took half a second to start."""
    for directory in directories:
        record_submission(directory, 1, backend="fake", submitted=1000.0)
        record_run(directory, 1, started=1000.5, ended=1000.0 + seconds)


def rows(study_file: Path, folder: Path, *overrides: str) -> dict[str, Row]:
    return {row.name: row for row in planned(study_file, folder, *overrides)}


def test_a_forecast_plays_the_controllers_order_through(study_file: Path, tmp_path: Path) -> None:
    row = planned(study_file, tmp_path)[0]
    first, second = (TrialDir(tmp_path / name) for name in "ab")
    free = Left(row, tuning=4, final=2, tuning_teacher=(), other_teachers=())
    assert forecast([free], {"no_kd": 10.0}, 2) == (30.0, 60.0)
    assert forecast([free], {"no_kd": 10.0}, 100) == (20.0, 60.0), "the winner comes last"
    taught = Left(row, tuning=4, final=2, tuning_teacher=(first,), other_teachers=(second,))
    told = forecast([taught, taught], {"no_kd": 10.0, first: 5.0, second: 5.0}, 100)
    assert told == (25.0, 130.0), "a shared teacher is trained once"


def test_what_is_left_is_read_from_the_rows_files(study_file: Path, tmp_path: Path, root: Root) -> None:
    before = left_of(rows(study_file, tmp_path)["crd"])
    assert (before.tuning, before.final) == (3, 2)
    assert (len(before.tuning_teacher), len(before.other_teachers)) == (1, 2)
    launched(study_file, tmp_path)
    done = left_of(rows(study_file, tmp_path)["crd"])
    assert (done.tuning, done.final, done.tuning_teacher, done.other_teachers) == (0, 0, (), ())
    more = left_of(rows(study_file, tmp_path, "defaults.seeds=3")["crd"])
    assert (more.tuning, more.final, len(more.other_teachers)) == (0, 1, 1)
    longer = left_of(rows(study_file, tmp_path, "defaults.trials=5")["crd"])
    assert (longer.tuning, longer.final) == (2, 2), "another trial may win"


def test_an_open_trial_is_left_and_a_failed_one_is_not(study_file: Path, tmp_path: Path, root: Root) -> None:
    def fails(job: Job, attempt: int) -> Failure | None:
        return Failure.ERROR if job.command[3].endswith("trials/0") else Failure.PREEMPTED

    launched(study_file, tmp_path, backend=FakeBackend(fails), stop=after(8, Stop.WITH_JOBS))
    assert left_of(rows(study_file, tmp_path)["no_kd"]).tuning == 2


def test_a_run_takes_all_its_attempts_and_what_accounting_says(study_file: Path, tmp_path: Path) -> None:
    trial = launched(study_file, tmp_path).rows[0].directory.trial(0)
    timed([trial], 8.0)
    scheduled, slurm = FakeBackend(), FakeBackend()
    scheduled.prompt, slurm.name = False, "slurm"
    assert run_seconds(trial, FakeBackend()) == pytest.approx(8.0)
    assert run_seconds(trial, scheduled) == pytest.approx(7.5), "the wait in a queue is no work"
    record_submission(trial, 2, backend="fake", elapsed=30)
    assert run_seconds(trial, scheduled) == pytest.approx(37.5)
    assert run_seconds(trial, slurm) is None, "another machine's times tell nothing"


def estimated(row: Row) -> Estimate | None:
    return from_finished([row], FakeBackend(), stored_identities(row.root))


def test_a_row_knows_its_own_runs_and_else_those_of_a_row_alike_scaled_by_epochs(
    study_file: Path, tmp_path: Path, root: Root
) -> None:
    study = launched(study_file, tmp_path)
    assert estimated(rows(study_file, tmp_path)["crd"]) is None, "no times are known"
    timed(study.rows[1].runs(), 6.0)
    own = estimated(rows(study_file, tmp_path)["crd"])
    assert own is not None
    assert (own.seconds, own.how) == (pytest.approx(6.0), "the mean of its 5 finished runs")
    other = rows(study_file, tmp_path, "rows.crd.space.beta=0.5", "training.epochs=30")["crd"]
    alike = estimated(other)
    assert alike is not None
    assert alike.seconds == pytest.approx(60.0)
    assert alike.how.endswith("'s 5 finished runs, which have 3 epochs")
    for change in ("student.width=16", "training.batch_size=8", "rows.crd.pairing=audio", "teacher.width=16"):
        assert estimated(rows(study_file, tmp_path, change)["crd"]) is None, change


def test_a_teacher_is_judged_by_those_of_its_kind(study_file: Path, tmp_path: Path, root: Root) -> None:
    timed(launched(study_file, tmp_path).teachers(), 4.0)
    config = rows(study_file, tmp_path, "teacher_training.epochs=6")["crd"].teacher_config(0)
    assert config is not None
    estimate = teacher_from_finished(config, root, FakeBackend())
    assert estimate is not None
    assert (estimate.seconds, estimate.how) == (pytest.approx(8.0), "the mean of 3 under this root")
    other = rows(study_file, tmp_path, "teacher.width=16")["crd"].teacher_config(0)
    assert other is not None
    assert teacher_from_finished(other, root, FakeBackend()) is None


def command(study_file: Path, root: Root, *options: str) -> list[str]:
    where = ["--study", str(study_file), "--root", str(root.path), "--cluster", "local", "--device", "cpu"]
    return [*where, "--parallel", "2", "--dry-run", *options]


def test_a_dry_run_says_what_is_not_known_and_how_to_find_out(
    study_file: Path, root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(study_file, root)) == 0
    said = capsys.readouterr().out
    assert "left      crd: 3 trials and 2 final runs, of unknown length" in said
    assert "estimate  not possible yet; --dry-run --probe runs one epoch of each here" in said


def test_a_dry_run_estimates_from_finished_runs_and_says_so(
    study_file: Path, tmp_path: Path, root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    study = launched(study_file, tmp_path)
    timed(study.directories(), 600.0)
    for directory in study.directories():
        record_submission(directory, 1, backend="local")
    assert main(command(study_file, root, "--trials", "5")) == 0
    said = capsys.readouterr().out
    assert "left      no_kd: 2 trials and 2 final runs, 10 min each (the mean of its 5 finished runs)" in said
    assert "estimate  about 40 min with 2 at a time, if none waits in a queue; 0.00 GPU-hours" in said
    assert main(command(study_file, root)) == 0
    assert "left      nothing" in capsys.readouterr().out


def test_a_probe_runs_an_epoch_elsewhere_and_tells(
    study_file: Path, root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    text = study_file.read_text()
    study_file.write_text(text[: text.index('[[rows]]\nname = "crd"')])
    began = time.monotonic()
    assert main(command(study_file, root, "--probe", "--trials", "1", "--seeds", "1")) == 0
    taken = time.monotonic() - began
    said = capsys.readouterr().out
    assert "probing   no_kd\n" in said
    assert "one epoch run here: " in said
    assert "to start and end; 3 of them)" in said
    seconds = float(said.split("estimate  about ")[1].split(" s ")[0])
    assert 1 <= seconds <= 4 * taken + 1
    assert list(root.path.rglob("*")) == []


def test_a_probe_that_fails_says_which_and_why(
    study_file: Path, root: Root, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.controller.make_job.sys.executable", "false")
    assert main(command(study_file, root, "--probe")) == 2
    assert capsys.readouterr().err == "error: --probe: no_kd ended with code 1: its log is empty\n"


def test_a_row_record_that_is_no_json_is_passed_over(study_file: Path, tmp_path: Path, root: Root) -> None:
    study = launched(study_file, tmp_path)
    timed(study.rows[0].runs(), 6.0)
    broken = root.row("broken", "0" * 8)
    broken.path.mkdir()
    broken.row.write_text("{")
    other = rows(study_file, tmp_path, "training.epochs=6")["no_kd"]
    assert estimated(other) is not None
