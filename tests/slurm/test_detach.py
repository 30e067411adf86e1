"""A controller in a job of its own on a real Slurm: it hands over, is refused twice, and is cancelled with its jobs."""

import subprocess
import sys
from pathlib import Path

import pytest
from survival import reported, trial_dirs, wait_for
from tiny_study import write_tiny_study

from mmkd.attempts import read_attempts
from mmkd.files import read_json
from mmkd.metrics_log import read_metrics
from mmkd.rundir import Root
from slurm.accounting import QueuedJob, squeue
from slurm.devcluster import DevCluster
from sweeps.controller.job_names import controller_job, job_tag

LAUNCH = Path(__file__).parents[2] / "sweeps" / "launch.py"
PATIENCE = 300.0
SITE = """
[slurm]
cpus = 1
mem = "1G"
poll = 1.0

[detach]
mem = "1G"
time = "30"
"""


class Study:
    """The tiny study's control alone, on the cluster under a root of its own."""

    def __init__(self, folder: Path) -> None:
        text = write_tiny_study(folder).read_text()
        self.file = folder / "one.toml"
        self.file.write_text(text[: text.index('[[rows]]\nname = "crd"')])
        (folder / "site.toml").write_text(SITE)
        self.root, self.folder = Root(folder / "runs"), folder

    def launch(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the command where its files lie."""
        where = ["--study", "one.toml", "--root", "runs", "--site", "site.toml"]
        command = [sys.executable, str(LAUNCH), *where, *options]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE)

    def jobs(self) -> list[QueuedJob]:
        """Its jobs that wait or run."""
        return [job for job in squeue() if job.name.startswith(job_tag(self.root)) and not job.ended]

    def controllers(self) -> list[str]:
        """Ids of its controllers' jobs that wait or run."""
        return [job.id for job in self.jobs() if job.name == controller_job(self.root, "one")]

    @property
    def log(self) -> str:
        return self.root.controller_log("one").read_text(errors="replace")


@pytest.fixture
def study(cluster: DevCluster, tmp_path: Path) -> Study:
    return Study(tmp_path)


def detach(study: Study, *options: str) -> str:
    """The id of the detached controller's job."""
    done = study.launch("--detach", "--device", "cpu", "--parallel", "2", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(study.root.controller_log("one")) in done.stdout
    (identifier,) = study.controllers()
    assert f"detached: job {identifier} " in done.stdout
    return identifier


def test_a_detached_controller_hands_over_before_its_time_limit_and_its_successor_finishes(
    study: Study, cluster: DevCluster
) -> None:
    budget = ("--epochs", "300", "--trials", "1", "--seeds", "1")
    first = detach(study, *budget, "--snapshot")
    record = study.root.study("one").read_bytes()
    second = study.launch("--detach")
    assert second.returncode == 2
    assert f"job {first} (" in second.stderr
    assert "is already this study's controller" in second.stderr
    wait_for("a trial trains", lambda: list(study.root.path.glob("rows/*/trials/*/metrics.jsonl")))
    here = study.launch("--device", "cpu", *budget)
    assert here.returncode == 2, "a controller beside it is refused"
    assert "another controller is at work" in here.stderr
    assert study.root.study("one").read_bytes() == record, "refused launches change no record"
    cluster.run("scancel", "--signal=USR2", first)  # what Slurm sends some time before the limit
    wait_for("a successor", lambda: study.controllers() not in ([], [first]) or "Student without KD  " in study.log)
    wait_for("the study ends", lambda: not study.jobs())
    assert "1 job left running, to be found by the next launch" in study.log
    assert "is the next controller" in study.log
    assert study.log.count("controller: job ") == 2
    assert "\x1b" not in study.log, "a log is no terminal"
    assert "Student without KD" in study.log[study.log.rindex("controller: job ") :], "the table"
    assert [len(said) for said in reported(study.root.path).values()] == [1]
    attempts = [attempt for trial in trial_dirs(study.root.path) for attempt in read_attempts(trial)]
    assert {attempt.end for attempt in attempts} == {"complete"}, "handing over costs no attempt"
    (snapshot,) = study.root.code.glob("*/snapshot.json")
    assert {attempt.ran.code for attempt in attempts} == {read_json(snapshot)["code"]}


def test_a_detached_controller_and_its_jobs_are_cancelled_and_all_goes_on_later(study: Study) -> None:
    detach(study, "--epochs", "3000")
    training = lambda: any(len(read_metrics(trial)) > 2 for trial in trial_dirs(study.root.path))  # noqa: E731
    wait_for("a trial trains", training)
    status = study.launch("--status")
    assert status.returncode == 0
    assert "controller  detached: job " in status.stdout
    assert "RUNNING" in status.stdout
    cancelled = study.launch("--cancel")
    assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
    wait_for("the queue is empty", lambda: not study.jobs())
    trials = trial_dirs(study.root.path)
    assert trials
    assert all(read_attempts(trial)[-1].end is not None for trial in trials)
    assert any(trial.checkpoint.exists() for trial in trials)
    again = study.launch("--status")
    assert "controller  none is at work" in again.stdout
    assert "jobs        none" in again.stdout


def test_jobs_that_outlived_their_controller_are_cancelled_without_one(study: Study) -> None:
    controller = detach(study, "--epochs", "3000")
    wait_for("two trials run beside the controller", lambda: len(study.jobs()) == 3)
    subprocess.run(["scancel", "--signal=KILL", controller], check=True)
    wait_for("the controller is dead", lambda: not study.controllers())
    assert len(study.jobs()) == 2
    cancelled = study.launch("--cancel")
    assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
    assert "2 jobs without a controller" in cancelled.stdout
    wait_for("the queue is empty", lambda: not study.jobs())
    assert not list(study.root.path.rglob("controller.lock"))
