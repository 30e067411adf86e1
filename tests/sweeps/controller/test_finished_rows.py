"""A row's finished.jsonl saves a relaunch its work and changes nothing: without it all is the same, only slower."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from controlled import run
from fakes import FakeBackend, fake_result
from launched import after, launched, planned, tree

from mmkd.attempts import record_run
from mmkd.failures import Failure
from mmkd.finished import describe, read_finished
from mmkd.lock import FileLock
from mmkd.records import WinnerRecord, read_record
from mmkd.result_file import Status
from mmkd.rundir import RowDir, TrialDir
from slurm.backend import Handle, Job
from sweeps.actions.status import show_status
from sweeps.controller.optuna_study import Tuning
from sweeps.controller.row import RowWork
from sweeps.controller.stopping import Stop
from sweeps.launched_study import RecordedStudy, read_recorded
from sweeps.rows import Row


def lines(row: RowDir) -> list[str]:
    """The trials in the file's lines, which all hold and say what the directories say."""
    found = read_finished(row, careful=True)
    assert found.is_clean
    for name, line in found.trials.items():
        assert line == describe(TrialDir(row.path / name))[0]
    return list(found.trials)


def relaunch(rows: list[Row]) -> tuple[list[str], list[RowWork]]:
    """Names of the jobs that another launch submits, and its rows."""
    backend = FakeBackend()
    works = run(rows, rows[0].root, backend)
    return [job.name for job in backend.jobs], works


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rows whose journals are opened from now on."""
    names: list[str] = []
    original = Tuning.__init__

    def noted(self: Tuning, row: Row, lock: FileLock, parallel: int) -> None:
        names.append(row.name)
        original(self, row, lock, parallel)

    monkeypatch.setattr(Tuning, "__init__", noted)
    return names


def test_every_finished_trial_has_one_line_at_the_end_of_a_launch(study_file: Path, tmp_path: Path) -> None:
    study = launched(study_file, tmp_path)
    for row in study.rows:
        assert sorted(lines(row.directory)) == sorted(f"{d.path.parent.name}/{d.path.name}" for d in row.runs())


def test_a_relaunch_of_a_finished_study_opens_no_journal_and_changes_no_file(
    study_file: Path, tmp_path: Path, opened: list[str]
) -> None:
    study = launched(study_file, tmp_path)
    rows = planned(study_file, tmp_path)
    before = tree(study.root.path)
    opened.clear()
    jobs, works = relaunch(rows)
    assert (jobs, opened, tree(study.root.path)) == ([], [], before)
    assert all(work.is_done and not work.failed_trials() and not work.remaining for work in works)


def damaged_line(row: RowDir) -> None:
    row.finished.write_bytes(row.finished.read_bytes()[:-100])


def garbage(row: RowDir) -> None:
    row.finished.write_bytes(b"\x00garbage\n")


def deleted_file(row: RowDir) -> None:
    row.finished.unlink()


@pytest.mark.parametrize("damage", [damaged_line, garbage, deleted_file])
def test_a_damaged_file_is_made_again_by_the_next_launch(
    study_file: Path, tmp_path: Path, damage: Callable[[RowDir], None]
) -> None:
    study = launched(study_file, tmp_path)
    row = study.rows[0].directory
    whole = sorted(lines(row))
    damage(row)
    assert relaunch(planned(study_file, tmp_path))[0] == []
    assert sorted(lines(row)) == whole


def deleted_directory(trial: TrialDir) -> None:
    shutil.rmtree(trial.path)


def deleted_result(trial: TrialDir) -> None:
    trial.result.unlink()


def flipped_bit(trial: TrialDir) -> None:
    content = bytearray(trial.result.read_bytes())
    content[len(content) // 2] ^= 1
    trial.result.write_bytes(content)


@pytest.mark.parametrize("damage", [deleted_directory, deleted_result, flipped_bit])
@pytest.mark.parametrize("kind", ["tuning", "final"])
def test_what_became_of_a_result_after_its_line_is_noticed_and_the_trial_runs_again(
    study_file: Path, tmp_path: Path, damage: Callable[[TrialDir], None], kind: str
) -> None:
    study = launched(study_file, tmp_path)
    row = study.rows[0].directory
    trial = row.trial(1) if kind == "tuning" else row.final_runs()[0]
    line = read_finished(row).trials[f"{trial.path.parent.name}/{trial.path.name}"]
    whole = sorted(lines(row))
    damage(trial)
    jobs, _ = relaunch(planned(study_file, tmp_path))
    assert len(jobs) == 1
    assert sorted(lines(row)) == whole
    assert describe(trial)[0].metrics == line.metrics


@pytest.mark.parametrize("override", ["defaults.trials=5", "defaults.seeds=3"])
def test_a_larger_budget_is_met(study_file: Path, tmp_path: Path, override: str) -> None:
    launched(study_file, tmp_path)
    jobs, works = relaunch(planned(study_file, tmp_path, override))
    assert jobs
    for work in works:
        assert sorted(lines(work.directory)) == sorted(
            f"{d.path.parent.name}/{d.path.name}" for d in [*work.directory.trials(), *work.directory.final_runs()]
        )


def test_two_controllers_in_sequence_share_the_lines(study_file: Path, tmp_path: Path) -> None:
    study = launched(study_file, tmp_path, stop=after(3, Stop.WITH_JOBS))
    first = {row.name: lines(row.directory) for row in study.rows}
    assert sum(map(len, first.values())) > 0
    relaunch(planned(study_file, tmp_path))
    for row in study.rows:
        assert lines(row.directory)[: len(first[row.name])] == first[row.name], "appended to, not written anew"


def test_a_failed_trial_needs_no_journal_either_and_is_retried_on_request(
    study_file: Path, tmp_path: Path, opened: list[str]
) -> None:
    def fails(job: Job, attempt: int) -> Failure | None:
        return Failure.ERROR if job.command[3].endswith("trials/1") else None

    launched(study_file, tmp_path, backend=FakeBackend(fails))
    rows = planned(study_file, tmp_path)
    opened.clear()
    jobs, works = relaunch(rows)
    assert (jobs, opened) == ([], [])
    assert [work.failed_trials() for work in works] == [[1], [1]]
    works = [RowWork(row, 2, study_file) for row in rows]
    assert [work.retry_failed() for work in works] == [1, 1]
    assert all(work.remaining for work in works)
    for work in works:
        work.close()
    jobs, works = relaunch(rows)
    assert len(jobs) >= 2, "the retries, which only the journal knows of"
    assert [work.failed_trials() for work in works] == [[], []]


def test_trials_whose_costs_are_not_accounted_yet_get_their_lines_later(study_file: Path, tmp_path: Path) -> None:
    class Accounting(FakeBackend):
        prompt = False
        accounted = False

        def usage(self, handles: Any, *, at_once: bool = False) -> dict[Handle, Mapping[str, Any]]:
            return {handle: {"gpu_seconds": 77.0} for handle in handles} if at_once else {}

        def submit(self, job: Job) -> str:
            found = [row for row in rows if row.directory.finished.exists()]
            assert found == [], "a line would not know the costs"
            record_run(TrialDir(Path(job.command[3])), int(job.command[5]), started=1.0)
            return super().submit(job)

        def _end(self, job: Job) -> None:
            super()._end(job)
            record_run(TrialDir(Path(job.command[3])), int(job.command[5]), end="complete", ended=2.0)

    rows = planned(study_file, tmp_path)[:1]
    run(rows, rows[0].root, Accounting())
    found = read_finished(rows[0].directory).trials
    assert len(found) == 5
    assert {line.attempts[-1].submitted.gpu_seconds for line in found.values()} == {77.0}
    lines(rows[0].directory)


def test_a_directory_that_cannot_be_written_stops_no_controller(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(row: RowDir, found: object) -> None:
        raise OSError(28, "No space left on device", str(row.finished))

    for name in ("add_finished", "write_finished"):
        monkeypatch.setattr(f"sweeps.controller.finished_list.{name}", refuse)
    study = launched(study_file, tmp_path)
    assert not study.rows[0].directory.finished.exists()
    assert relaunch(planned(study_file, tmp_path))[0] == []


def test_the_winner_knows_the_journals_size_and_an_older_one_is_completed(study_file: Path, tmp_path: Path) -> None:
    study = launched(study_file, tmp_path)
    row = study.rows[0].directory
    whole = json.loads(row.winner.read_text())
    assert read_record(row.winner, WinnerRecord).journal == row.journal.stat().st_size
    row.winner.write_text(json.dumps({key: value for key, value in whole.items() if key != "journal"}))
    relaunch(planned(study_file, tmp_path))
    assert json.loads(row.winner.read_text()) == whole


def status(study: RecordedStudy, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    show_status(read_recorded(study.root, study.name))
    return capsys.readouterr().out


class Costly(FakeBackend):
    """Each job takes two hours on one GPU; trial 1 diverges, and trial 2 fails."""

    gpus = 1

    def _end(self, job: Job) -> None:
        trial, attempt = TrialDir(Path(job.command[3])), int(job.command[5])
        record_run(trial, attempt, started=1.0, ended=7201.0)
        if trial.path.name == "1":
            fake_result(trial, Status.DIVERGED)
        else:
            self.fails = lambda job, attempt: Failure.ERROR if trial.path.name == "2" else None
            super()._end(job)


@pytest.mark.parametrize("rounds", [4, 99])
def test_status_is_the_same_without_the_file(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rounds: int
) -> None:
    stop = after(rounds, Stop.WITH_JOBS)
    study = launched(study_file, tmp_path, "defaults.trials=5", backend=Costly(), stop=stop)
    said = status(study, capsys)
    assert sum(len(read_finished(row.directory).trials) for row in study.rows) == (12 if rounds == 99 else 5)
    assert "GPU-hours   0.00" not in said
    assert "(1 diverged)" in said
    for row in study.rows:
        row.directory.finished.unlink()
    assert status(study, capsys) == said
