"""The controller's own job: what it asks for, what it runs, and who goes on (tests/slurm has the real thing)."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from launched import launched

from mmkd.errors import UserError
from mmkd.rundir import Root
from slurm.accounting import NoAnswer, QueuedJob
from slurm.backend import Handle, Job, SubmissionDelayed
from slurm.fallback import TrialSettings
from slurm.settings import seconds as seconds_of
from sweeps.actions import detach as detaching
from sweeps.actions.detach import absolute, continues, controller_jobs, controller_settings
from sweeps.controller.stopping import Stop, StopRequests
from sweeps.options import make_parser
from sweeps.site_file import ControllerJob, Site


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-12", 129600), ("1-12:30", 131400), ("2-00:00:05", 172805),
        ("0", 0),
    ],
)  # fmt: skip
def test_a_time_limit_is_read_as_sbatch_reads_it(limit: str, seconds: int) -> None:
    assert seconds_of(limit) == seconds


def test_the_controllers_job_is_small_has_no_gpu_and_hands_over_before_its_limit() -> None:
    slurm = TrialSettings(
        partition="gpu", account="lab", gpus="h200:1", cpus=8, mem="64G", constraint="big", prefix="apptainer exec x",
        setup=("module load cuda",), python="/in/the/container",
        extra={"reservation": "lab", "exclusive": "", "gres": "lscratch:100"},
    )  # fmt: skip
    settings = controller_settings(Site(slurm=slurm, detach=ControllerJob(partition="login", time="0-01")))
    assert (settings.partition, settings.account) == ("login", "lab")
    assert (settings.gpu_options(), settings.cpus, settings.mem, settings.constraint) == ({}, 1, "4G", None)
    assert (settings.prefix, settings.setup) == ("", ("module load cuda",)), "it needs sbatch, which containers lack"
    assert settings.extra == {"reservation": "lab"}, "a whole node is too much for it"
    assert settings.grace == 300
    assert controller_settings(Site(detach=ControllerJob(time="2"))).grace == 60
    assert controller_settings(Site(slurm=slurm)).partition == "gpu"
    with pytest.raises(UserError, match=r"\[detach\]: time 1 is not above the grace"):
        controller_settings(Site(detach=ControllerJob(time="1")))


def test_the_detached_command_is_the_same_with_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--study", "mine.toml", "--data=utd.h5", "--detach", "--root", "runs", "--set", "training.epochs=3"]
    given += ["--site", "../lab/site.toml", "--cluster=auto", "--slurm.extra", "comment=--root"]
    given += ["--journal", "study.log"]
    parser = make_parser()
    options = parser.parse_args(given)
    options.arguments = given
    arguments = absolute(options)
    again = parser.parse_args(arguments)
    assert (again.study, again.data) == (f"{tmp_path}/mine.toml", f"{tmp_path}/utd.h5")
    assert (again.root, again.cluster, again.detached) == (tmp_path / "runs", "slurm", "first")
    assert again.overrides == ["training.epochs=3"]
    assert not again.detach
    ours = {**vars(options), "detach": False}
    changed = {"study", "data", "root", "site", "journal", "cluster", "detached", "arguments"}
    assert again.journal == tmp_path / "study.log"
    assert again.site == tmp_path / "../lab/site.toml"
    assert len([word for word in arguments if word.startswith(("--site", "--root", "--cluster", "--data"))]) == 4
    assert {k: v for k, v in vars(again).items() if k not in changed} == {
        k: v for k, v in ours.items() if k not in changed
    }


def test_a_dry_run_prints_the_command_that_a_launch_would_detach() -> None:
    given = ["--study", "crd_attention", "--detach", "--slurm.time", "60"]
    told = []
    for words in (given, [*given, "--dry-run", "--probe"]):
        options = make_parser().parse_args(words)
        options.arguments = words
        told.append(absolute(options))
    assert told[0] == told[1]


def test_a_study_of_mmkd_is_named_and_not_looked_for_in_a_folder() -> None:
    options = make_parser().parse_args(["--study", "crd_attention", "--detach"])
    options.arguments = ["--study", "crd_attention", "--detach"]
    assert make_parser().parse_args(absolute(options)).study == "crd_attention"


@pytest.mark.parametrize(
    ("detached", "restarts", "expected"),
    [(None, "0", False), ("first", "0", False), ("first", "2", True), ("next", "0", True)],
)
def test_what_is_asked_for_once_is_not_done_again_by_a_controller_that_goes_on(
    detached: str | None, restarts: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    options = make_parser().parse_args(["--study", "x", *(["--detached", detached] if detached else [])])
    assert continues(options) is expected


def queued(name: str, state: str, identifier: str = "7") -> QueuedJob:
    return QueuedJob(identifier, name, state, "None", "n1", "gpu", "0:01", "1:00", "")


def test_controllers_are_found_by_name_and_slurm_is_not_asked_where_none_was_ever_detached(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_slurm() -> list[QueuedJob]:
        raise NoAnswer("this machine has no Slurm")

    study = launched(study_file, tmp_path, "defaults.trials=1", "defaults.seeds=1")
    monkeypatch.setattr(detaching, "squeue", no_slurm)
    assert controller_jobs(study.root, "tiny") == []
    study.root.controller_log("tiny").with_suffix(".sbatch").write_text("#!/bin/bash\n")
    with pytest.raises(NoAnswer):
        controller_jobs(study.root, "tiny")
    name = detaching.controller_job(study.root, "tiny")
    queue = [queued(name, "COMPLETED", "1"), queued(name, "PENDING", "2"), queued(f"{name}2", "RUNNING", "3")]
    monkeypatch.setattr(detaching, "squeue", lambda: queue)
    assert [found.id for found in controller_jobs(study.root, "tiny")] == ["2"]


@pytest.fixture
def signals() -> object:
    """Signal handlers are put back after the test."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("detached", "number", "how", "state", "successor"),
    [
        (False, signal.SIGINT, Stop.WITH_JOBS, "RUNNING", False),
        (False, signal.SIGTERM, Stop.WITH_JOBS, "RUNNING", False),
        (False, signal.SIGUSR1, Stop.WITHOUT_JOBS, "RUNNING", False),
        (True, signal.SIGUSR1, Stop.WITHOUT_JOBS, "RUNNING", False),
        (True, signal.SIGUSR2, Stop.WITHOUT_JOBS, "RUNNING", True),
        (True, signal.SIGTERM, Stop.WITHOUT_JOBS, "RUNNING", True),
        (True, signal.SIGTERM, Stop.WITHOUT_JOBS, "COMPLETING", False),
    ],
)
def test_signals_end_a_controller_with_its_jobs_or_without_and_slurms_own_bring_a_successor(
    signals: object, detached: bool, number: int, how: Stop, state: str, successor: bool,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr("sweeps.controller.stopping.squeue", lambda: [queued("a", "RUNNING", "6"), queued("b", state)])
    stop = StopRequests(tmp_path / "stop", detached=detached)
    assert stop() is None
    os.kill(os.getpid(), number)
    assert stop() is how
    assert stop.exit_code == 128 + number
    assert stop.wants_successor() is successor


class Sbatch:
    """Takes jobs, after as many delays as it is told."""

    def __init__(self, delays: int = 0) -> None:
        self.delays, self.jobs = delays, []

    def submit(self, job: Job) -> Handle:
        if self.delays:
            self.delays -= 1
            raise SubmissionDelayed("Unable to contact slurm controller", certain=True)
        self.jobs.append(job)
        return Handle(job.name, "8")


@pytest.fixture
def handing_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Hand over as job 7, where these controllers are in the queue; the code, and the jobs that were submitted."""

    def hand(sbatch: Sbatch, *queue: QueuedJob) -> tuple[int, list[Job]]:
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        monkeypatch.setattr(detaching, "RETRY_SECONDS", 0.0)
        monkeypatch.setattr(detaching, "slurm_backend", lambda settings: sbatch)
        monkeypatch.setattr(detaching, "controller_jobs", lambda root, name: list(queue))
        made = SimpleNamespace(root=Root(tmp_path), name="tiny", site=Site(), code=None)
        arguments = ["--study", "tiny", "--root", "/runs", "--detached", "first"]
        code = detaching.hand_over(made, SimpleNamespace(arguments=arguments))
        return code, sbatch.jobs

    return hand


def test_a_successor_waits_for_its_predecessors_end_and_runs_the_same_command(handing_over) -> None:
    code, (job,) = handing_over(Sbatch(delays=2), queued("a", "RUNNING", "7"))
    assert (code, job.after, job.requeue) == (0, "7", True)
    assert job.command[2:] == ("--study", "tiny", "--root", "/runs", "--detached", "next")


def test_a_controller_that_slurm_requeued_has_one_successor_and_no_more(handing_over) -> None:
    waiting = queued("a", "PENDING", "9")
    assert handing_over(Sbatch(), queued("a", "RUNNING", "7"), waiting) == (0, [])


def test_the_stop_file_ends_a_controller_with_its_jobs_for_good(signals: object, tmp_path: Path) -> None:
    stop = StopRequests(tmp_path / "stop", detached=True)
    (tmp_path / "stop").write_text("launch.py --cancel\n")
    assert stop() is Stop.WITH_JOBS
    assert not stop.wants_successor()
