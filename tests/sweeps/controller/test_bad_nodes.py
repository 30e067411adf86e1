"""A node on which nothing starts costs no trial a try and is excluded for a while; the launch ends if all are bad."""

from collections.abc import Collection
from pathlib import Path

import pytest
from controlled import rows_of, states
from fake_cluster import FakeCluster, run

from mmkd.attempts import read_attempts
from mmkd.rundir import Root
from slurm.backend import Handle, Job, Report
from sweeps.controller.bad_nodes import BadNodes
from sweeps.controller.stopping import Halted
from sweeps.rows import Row


class Cluster(FakeCluster):
    """Jobs go to the first node that they do not avoid; on a `bad` one they fail before their trial starts."""

    def __init__(self, nodes: Collection[str], bad: Collection[str]) -> None:
        super().__init__()
        self.nodes, self.bad, self.on = nodes, bad, []  # type: ignore[var-annotated]

    def submit(self, job: Job) -> Handle:
        self.on.append(next((node for node in self.nodes if node not in job.avoid), next(iter(self.nodes))))
        return super().submit(job)

    def _end(self, job: Job) -> None:
        if self.on[self.jobs.index(job)] not in self.bad:
            super()._end(job)
            return
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.log.write_text("mmkd: setup line failed (exit 1): mount /scratch\n")

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        reports = super().poll(handles)
        return {h: r if r.alive else self._failed(h, r) for h, r in reports.items()}

    def _failed(self, handle: Handle, report: Report) -> Report:
        node = self.on[int(handle.id)]
        return Report(False, "error", "Slurm says FAILED", node=node) if node in self.bad else report


@pytest.fixture
def row(study_file: Path, tmp_path: Path) -> Row:
    return rows_of(study_file, tmp_path, "defaults.trials=8")["no_kd"]


def test_trials_that_a_bad_node_did_not_start_go_elsewhere_and_lose_no_try(row: Row, tmp_path: Path) -> None:
    cluster = Cluster(("n1", "n2", "n3"), bad=("n1",))
    work, said = run(row, Root(tmp_path / "runs"), cluster, parallel=4)
    assert states(row) == ["1"] * 8
    assert not work.failed
    assert cluster.on.count("n1") == 4, "as many as ran at once; then it was excluded"
    assert said.count("node n1 is excluded for 30 min: 3 jobs in a row ended there") == 1
    assert "mount /scratch" in said
    ends = [[attempt.end for attempt in read_attempts(trial)] for trial in row.directory.trials()]
    assert ends.count(["not_started", "complete"]) == 4


def test_the_launch_ends_if_nothing_starts_on_any_node(row: Row, tmp_path: Path) -> None:
    cluster = Cluster(("n1", "n2"), bad=("n1", "n2"))
    with pytest.raises(Halted, match=r"on every node that was tried \(n1, n2\): .*mount /scratch"):
        run(row, Root(tmp_path / "runs"), cluster)
    assert len(cluster.jobs) < 12
    repaired = Cluster(("n1", "n2"), bad=())
    run(row, Root(tmp_path / "runs"), repaired)
    assert states(row) == ["1"] * 8, "the same command resumes, and no trial has lost a try"


def test_an_excluded_node_is_tried_again_later_and_at_longer_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("sweeps.controller.bad_nodes.time.monotonic", lambda: now)
    nodes = BadNodes()
    said = [nodes.fail("n1", (), "why", others_run=True) for _ in range(4)]
    assert [bool(line) for line in said] == [False, False, True, False]
    assert nodes.excluded == ("n1",)
    now = 1801.0
    assert nodes.excluded == ()
    assert "for 1 h" in nodes.fail("n1", (), "why", others_run=True), "one more failure is enough"
    assert nodes.excluded == ("n1",)
    nodes.start("n1")
    assert nodes.excluded == ()
    assert not nodes.hopeless


def test_no_node_is_left_if_a_job_ran_where_it_should_not_have_or_many_fail_alike() -> None:
    nodes = BadNodes()
    nodes.fail("n1", (), "why", others_run=False)
    assert not nodes.hopeless
    nodes.fail("n1", ("n1",), "why", others_run=True)
    assert not nodes.hopeless, "what runs elsewhere shows that not all are bad"
    nodes.fail("n1", ("n1",), "why", others_run=False)
    assert "(n1): why" in nodes.hopeless
    nowhere = BadNodes()
    nowhere.fail("n1", (), "why", others_run=False)
    nowhere.fail("", ("n1",), "it left no log", others_run=False)
    assert "(n1): why" in nowhere.hopeless, "Slurm accepted a job that avoids all nodes, and ended it"
    many = BadNodes()
    for number in range(5):
        assert not many.hopeless
        many.fail(f"n{number}", (), "why", others_run=False)
    assert many.hopeless
