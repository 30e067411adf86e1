"""Nodes and login nodes have clocks that are hours ahead or behind: no cost, budget or decision depends on that."""

import socket
import time
from pathlib import Path

import pytest
from controlled import rows_of, states
from fake_cluster import FakeCluster, run

from mmkd.attempts import Attempt, read_attempts, record_run
from mmkd.failures import Failure
from mmkd.records import RunRecord, SubmissionRecord
from mmkd.rundir import Root, TrialDir
from slurm.backend import Job
from sweeps.controller.run_times import RunTimes
from sweeps.rows import Row

SKEWS = [-7200.0, 0.0, 7200.0]


class SkewedCluster(FakeCluster):
    """Jobs run on a node whose clock differs by `skew` seconds from ours; accounting is off."""

    def __init__(self, skew: float, killed: bool = False) -> None:
        super().__init__(delay=3)
        self.skew, self.killed = skew, killed

    def _end(self, job: Job) -> None:
        directory, attempt = TrialDir(Path(job.command[3])), int(job.command[5])
        started = time.time() + self.skew
        record_run(directory, attempt, host="n1", started=started)
        if self.killed and attempt == 1:
            return
        super()._end(job)
        record_run(directory, attempt, end="complete", ended=started + 1.0, seconds=1.0)

    def usage(self, handles, *, at_once=False):  # type: ignore[no-untyped-def]
        return {}


@pytest.fixture
def row(study_file: Path, tmp_path: Path) -> Row:
    return rows_of(study_file, tmp_path)["no_kd"]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.controller.jobs.VISIBLE_SECONDS", 0.0)
    monkeypatch.setattr("sweeps.controller.jobs.CLOSING_SECONDS", 0.0)


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("killed", [False, True])
def test_costs_are_those_of_one_clock(row: Row, tmp_path: Path, skew: float, killed: bool) -> None:
    cluster = SkewedCluster(skew, killed)
    _, said = run(row, Root(tmp_path / "runs"), cluster, max_gpu_hours=1.0)
    assert states(row) == ["1"] * 3
    assert "are spent" not in said
    for trial in row.directory.trials():
        *killed_before, last = read_attempts(trial)
        assert last.submitted.gpu_seconds == cluster.gpus * 1.0
        assert last.seconds(time.time()) == 1.0
        assert len(killed_before) == killed
        for attempt in killed_before:
            assert 0 <= (attempt.submitted.gpu_seconds or 0.0) < 60
            assert 0 <= attempt.seconds(time.time()) < 60


@pytest.mark.parametrize("skew", SKEWS)
def test_a_running_attempt_is_measured_by_its_nodes_clock_until_it_is_seen_and_then_by_ours(
    tmp_path: Path, skew: float
) -> None:
    directory, times = TrialDir(tmp_path), RunTimes()
    started = time.time() + skew
    directory.metrics.write_text(f'{{"epoch": 1, "time": {started + 500.0}}}\n')
    assert times.seconds(directory) == 0.0
    assert times.see(directory, RunRecord(started=started))
    assert not times.see(directory, RunRecord(started=started)), "once"
    assert 500.0 <= times.seconds(directory) < 510.0
    assert times.end(directory, RunRecord(started=started, seconds=600.0)) == 600.0
    assert len(times) == 0


@pytest.mark.parametrize("skew", SKEWS)
def test_an_attempt_on_another_host_has_run_until_its_last_epoch(skew: float) -> None:
    started = time.time() + skew
    elsewhere = Attempt(1, SubmissionRecord(), RunRecord(host="n1", started=started))
    assert elsewhere.seconds(time.time()) == 0.0
    assert elsewhere.seconds(time.time(), heard=started + 90.0) == pytest.approx(90.0)
    here = Attempt(1, SubmissionRecord(), RunRecord(host=socket.gethostname(), started=time.time() - 60))
    assert here.seconds(time.time()) == pytest.approx(60.0, abs=1.0)


def test_a_relaunch_from_a_host_whose_clock_is_behind_tries_again_what_failed(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the times in the records, the earlier launch's attempts are of the future."""
    root = Root(tmp_path / "runs")
    fails = FakeCluster(fails=lambda job, attempt: Failure.ERROR if ".s1-" in job.name else None)
    work, _ = run(row, root, fails)
    assert work.failed_seeds() == [1]
    clock = time.time
    monkeypatch.setattr("sweeps.controller.jobs.time.time", lambda: clock() - 3600)
    work, _ = run(row, root, FakeCluster())
    assert work.failed_seeds() == []


def test_a_budget_is_not_spent_any_more_if_accounting_corrects_a_cost(row: Row, tmp_path: Path) -> None:
    """A node's clock was set while a job ran: by the job's own record it took two hours."""

    class Corrected(FakeCluster):
        def usage(self, handles, *, at_once=False):  # type: ignore[no-untyped-def]
            return {handle: {"gpu_seconds": 1.0} for handle in handles} if at_once else {}

        def _end(self, job: Job) -> None:
            super()._end(job)
            record_run(TrialDir(Path(job.command[3])), 1, started=1.0, end="complete", ended=7201.0)

    _, said = run(row, Root(tmp_path / "runs"), Corrected(), parallel=1, max_gpu_hours=3.9)
    assert "4.00 GPU-hours are spent" in said
    assert states(row) == ["1"] * 3, "and yet it went on"
