"""Somebody else cancels all jobs again and again: the controller backs off, explains --cancel, and then stops."""

from collections.abc import Collection
from pathlib import Path

import pytest
from controlled import rows_of, states
from fake_cluster import FakeCluster, run

from mmkd.rundir import Root
from slurm.backend import Handle, Report
from sweeps.controller.stopping import Halted
from sweeps.controller.storms import Storms
from sweeps.rows import Row


class Cancelled(FakeCluster):
    """All jobs of each of the first `storms` polls with live jobs are cancelled."""

    def __init__(self, storms: int) -> None:
        super().__init__(delay=2)
        self.storms = storms
        self.gone: dict[str, Report] = {}

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        if handles and self.storms and all(handle.id in self.live for handle in handles):
            self.storms -= 1
            for handle in handles:
                self.live.pop(handle.id)
                self.gone[handle.id] = Report(False, "cancelled", "Slurm says CANCELLED", handle)
        lost = {handle: self.gone[handle.id] for handle in handles if handle.id in self.gone}
        return lost | super().poll([handle for handle in handles if handle not in lost])


@pytest.fixture
def row(study_file: Path, tmp_path: Path) -> Row:
    return rows_of(study_file, tmp_path)["no_kd"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.controller.storms.TOGETHER_SECONDS", 0.02)
    monkeypatch.setattr("sweeps.controller.storms.FIRST_PAUSE", 0.05)


def test_after_some_storms_the_jobs_come_back_later_and_the_user_is_told_how_to_end_them(
    row: Row, tmp_path: Path
) -> None:
    _, said = run(row, Root(tmp_path / "runs"), Cancelled(3))
    assert states(row) == ["1"] * 3
    assert "were cancelled 2 times, not by its controller" in said
    assert "were cancelled 3 times" in said
    assert "with --cancel" in said


def test_after_five_storms_a_person_has_to_decide(row: Row, tmp_path: Path) -> None:
    cluster = Cancelled(99)
    with pytest.raises(Halted, match="were cancelled 5 times, not by its controller"):
        run(row, Root(tmp_path / "runs"), cluster)
    assert 99 - cluster.storms <= 20, "a busy machine notices some storms in parts, which do not count"
    run(row, Root(tmp_path / "runs"), FakeCluster())
    assert states(row) == ["1"] * 3, "the same command resumes"


def test_pauses_double_and_one_of_many_jobs_is_no_storm(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("sweeps.controller.storms.time.monotonic", lambda: now)
    monkeypatch.setattr("sweeps.controller.storms.TOGETHER_SECONDS", 60.0)
    monkeypatch.setattr("sweeps.controller.storms.FIRST_PAUSE", 60.0)
    storms, pauses = Storms(), []
    for _ in range(9):
        storms.note(15)
        now += 100.0
    assert storms.count == 0, "a user ended single jobs"
    for _ in range(4):
        for running in range(7, -1, -1):
            storms.note(running)
        pauses.append(storms._until - now)
        now += 1000.0
    assert (storms.count, pauses[1:]) == (4, [60.0, 120.0, 240.0])
    assert not storms.hopeless
    now += 3600.0
    storms.note(0)
    assert storms.count == 1, "long ago"
