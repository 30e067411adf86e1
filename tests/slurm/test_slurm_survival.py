"""A study on a real Slurm has the same numbers as without, disturbed or not (long form: campaigns/slurm_faults.py)."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_study import DIES_BETWEEN_SBATCH_AND_RECORD, REPOSITORY, FaultyStudy
from survival import attempts, broken, wait_for
from tiny_study import write_tiny_study

from mmkd.files import read_json
from mmkd.records import as_written
from slurm.devcluster import DevCluster
from slurm.local_backend import usable_cores

BUDGET = ("--trials", "2", "--seeds", "1", "--epochs", "80")
"""Trials of four seconds, so that there is time to hit them."""
BRIEF = ("--trials", "1", "--seeds", "1", "--epochs", "3")

Start = Callable[[Path, tuple[str, ...]], FaultyStudy]


def without_slurm(study: Path, budget: tuple[str, ...]) -> Path:
    """The root of the study as this machine's cores run it, with one thread a trial."""
    root = study.parent / "without-slurm"
    where = ("--study", str(study), "--root", str(root), "--cluster", "local", "--device", "cpu")
    launch = [sys.executable, str(REPOSITORY / "sweeps" / "launch.py"), *where, "--parallel", str(usable_cores())]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([*launch, *budget], check=True, env=environment, stdout=subprocess.DEVNULL)
    return root


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_study(tmp_path_factory.mktemp("study"), rows=1)


@pytest.fixture(scope="module")
def expected(study: Path) -> Path:
    return without_slurm(study, BUDGET)


@pytest.fixture
def start(cluster: DevCluster, tmp_path: Path) -> Iterator[Start]:
    """A study on the cluster; no controller of it outlives the test."""
    begun: list[FaultyStudy] = []

    def begin(study: Path, budget: tuple[str, ...]) -> FaultyStudy:
        begun.append(FaultyStudy(cluster, study, tmp_path / "runs", budget))
        return begun[-1]

    yield begin
    for each in begun:
        each.stop_all()


def ends(root: Path) -> set[str | None]:
    return {attempt.end for attempt in attempts(root)}


def test_a_study_with_teachers_gives_the_numbers_that_it_gives_without_slurm(start: Start, tmp_path: Path) -> None:
    study = write_tiny_study(tmp_path / "study")
    running = start(study, BRIEF)
    running.finish()
    assert broken(running.root, without_slurm(study, BRIEF)) == []
    assert ends(running.root) == {"complete"}
    attempt = attempts(running.root)[0].submitted
    assert {"node", "max_rss_mb", "elapsed"} <= as_written(attempt).keys(), "accounting told of it"
    assert attempt.gpu_seconds == attempt.elapsed > 0, "of one GPU"


def test_a_preempted_trial_goes_on_from_where_it_was_stopped(start: Start, study: Path, expected: Path) -> None:
    running = start(study, BUDGET)
    with running.running():
        running.wait_until_training(2)
        wanted = ("--partition=urgent", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
        urgent = running.cluster.run("sbatch", "--parsable", *wanted).strip()
        wait_for("the urgent job", lambda: not running.cluster.run("squeue", "-h", "-j", urgent))
    assert broken(running.root, expected) == []
    stopped = [attempt for attempt in attempts(running.root) if attempt.end == "preempted"]
    assert stopped
    assert any("asked to end in epoch" in attempt.message for attempt in stopped), "it wrote its checkpoint in time"


def test_a_controller_killed_between_sbatch_and_its_record_finds_the_job_by_its_name(
    start: Start, study: Path, expected: Path
) -> None:
    running = start(study, BUDGET)
    running.start(patch=DIES_BETWEEN_SBATCH_AND_RECORD).wait()
    (record,) = running.root.glob("rows/*/trials/0/attempts/1.json")
    assert "job" not in read_json(record)
    (job,) = running.jobs()
    running.finish()
    assert broken(running.root, expected) == []
    assert read_json(record)["job"] == job.id
    assert len(attempts(running.root)) == 2 + 1, "nothing ran twice"


def test_a_node_that_is_lost_costs_an_attempt_and_is_avoided(start: Start, study: Path, expected: Path) -> None:
    running = start(study, BUDGET)
    with running.running():
        node = running.wait_until_training()[0].node
        running.cluster.lose_node(node)
    assert broken(running.root, expected) == []
    lost = [attempt for attempt in attempts(running.root) if attempt.end == "node_fail"]
    assert lost
    assert {attempt.submitted.node for attempt in lost} == {node}
    scripts = running.root.glob("**/log/2.sbatch")
    assert all(f"--exclude={node}" in script.read_text() for script in scripts)
