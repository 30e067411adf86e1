"""Slurm jobs that each work through many trials: same numbers, and nothing is lost with a worker."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from faulty_study import FaultyStudy
from survival import attempts, broken, wait_for
from test_slurm_survival import without_slurm
from tiny_study import write_tiny_study

from mmkd.records import WorkerRecord, find_record
from mmkd.rundir import Root, WorkerDir
from slurm.accounting import sacct
from slurm.devcluster import DevCluster

WORKERS = ("--slurm.workers", "2", "--slurm.trials_per_worker", "2")
BUDGET = ("--trials", "4", "--seeds", "1", "--epochs", "60")

DIES_AFTER_THE_ASSIGNMENT = """
import os, signal
import sweeps.controller.jobs as jobs
jobs._record_handle = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
"""The worker has the trial, and nobody has noted which worker."""
DIES_BEFORE_THE_ASSIGNMENT = """
import os, signal
os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
"""The attempt is announced, and no worker has it."""

Start = Callable[..., FaultyStudy]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_study(tmp_path_factory.mktemp("study"), rows=1)


@pytest.fixture(scope="module")
def expected(study: Path) -> Path:
    return without_slurm(study, BUDGET)


@pytest.fixture
def start(cluster: DevCluster, study: Path, tmp_path: Path) -> Iterator[Start]:
    """A study on the cluster's workers; no controller of it outlives the test."""
    begun: list[FaultyStudy] = []

    def begin(*options: str) -> FaultyStudy:
        begun.append(FaultyStudy(cluster, study, tmp_path / "runs", (*BUDGET, *WORKERS, *options)))
        return begun[-1]

    yield begin
    for each in begun:
        each.stop_all()


def workers(root: Path) -> list[WorkerDir]:
    return [WorkerDir(path.parent) for path in sorted(root.glob("workers/*/worker.json"))]


def test_two_jobs_run_all_trials_with_the_numbers_of_a_local_study(start: Start, expected: Path) -> None:
    running = start()
    with running.running():
        running.wait_until_training()
        records = [find_record(worker.record, WorkerRecord) for worker in workers(running.root)]
        assert all(record is not None and (record.slots, record.gpus) == (2, 1) for record in records)
    assert broken(running.root, expected) == []
    made = attempts(running.root)
    assert {attempt.end for attempt in made} == {"complete"}
    assert all(attempt.submitted.worker for attempt in made)
    jobs = {attempt.submitted.job for attempt in made}
    assert jobs <= {worker.path.name for worker in workers(running.root)}
    assert len(workers(running.root)) == 2
    accounted = sum(job.facts["gpu_seconds"] for job in sacct(jobs).values())
    trials = sum(attempt.submitted.gpu_seconds or 0.0 for attempt in made)
    idle = sum(find_record(worker.record, WorkerRecord).idle_gpu_seconds for worker in workers(running.root))
    assert 0 < trials < accounted
    assert trials + idle == pytest.approx(accounted, abs=5.0 * len(jobs)), "the rest is the start of the processes"


@pytest.mark.parametrize("patch", [DIES_AFTER_THE_ASSIGNMENT, DIES_BEFORE_THE_ASSIGNMENT], ids=["after", "before"])
def test_a_controller_killed_around_an_assignment_loses_and_doubles_nothing(
    patch: str, start: Start, expected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start()
    controller = running.start(patch)
    controller.wait()
    assert controller.returncode == -signal.SIGKILL
    running.finish()
    assert broken(running.root, expected) == []
    if patch == DIES_AFTER_THE_ASSIGNMENT:
        assert len(attempts(running.root)) == 4 + 1, "nothing ran twice"


def test_a_worker_that_loses_its_node_is_replaced(start: Start, expected: Path) -> None:
    running = start()
    with running.running():
        node = running.wait_until_training(2)[0].node
        running.cluster.lose_node(node)
    assert broken(running.root, expected) == []
    lost = [attempt for attempt in attempts(running.root) if attempt.end == "node_fail"]
    assert lost
    assert len(workers(running.root)) > 2


def test_a_killed_trial_is_seen_in_a_worker_that_lives(start: Start, expected: Path) -> None:
    running = start()
    with running.running():
        running.wait_until_training()
        victim = next(p for p in psutil.process_iter(["cmdline"]) if _is_trial_of(p, running.root))
        victim.kill()
    assert broken(running.root, expected) == []
    (killed,) = [attempt for attempt in attempts(running.root) if attempt.end == "node_fail"]
    assert killed.message.startswith("killed by signal 9")


def _is_trial_of(process: psutil.Process, root: Path) -> bool:
    line = " ".join(process.info["cmdline"] or [])
    return "mmkd.trial" in line and f"{root}/" in line


def test_cancelled_workers_end_with_checkpoints_and_the_study_resumes(start: Start, expected: Path) -> None:
    running = start()
    with running.running():
        victims = running.wait_until_training(2)
        running.cluster.run("scancel", *(job.id for job in victims))
        wait_for("their end", lambda: not {job.id for job in victims} & {job.id for job in running.jobs()})
    assert broken(running.root, expected) == []
    ended = [attempt for attempt in attempts(running.root) if attempt.end != "complete"]
    begun = [attempt for attempt in ended if attempt.is_started]  # not one that its worker had not taken yet
    assert begun
    assert all("asked to end" in attempt.message for attempt in begun)
    assert {attempt.end for attempt in ended} <= {"preempted", "cancelled"}


def test_workers_that_cannot_start_end_the_launch_with_their_last_words(start: Start) -> None:
    running = start("--slurm.setup", "echo no such module >&2; false")
    controller = running.start()
    controller.wait()
    assert controller.returncode == 2
    assert "workers end before they start, on every node that was tried" in running.said
    assert "mmkd: setup line failed" in running.said
    wait_for("an empty queue", lambda: not running.jobs())
    assert not list(Root(running.root).workers.glob("*/worker.json"))
    assert os.path.exists(running.root)
