"""What production clusters do to a study, on a real Slurm: a bad node, a stripped environment, renamed jobs."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_study import FaultyStudy
from survival import attempts, reported
from tiny_study import write_tiny_study

from mmkd.provenance import source_digest
from mmkd.rundir import Root
from slurm.backend import Job, SubmissionRefused
from slurm.devcluster import DevCluster
from slurm.settings import SlurmSettings
from slurm.slurm_backend import SlurmBackend
from sweeps.actions.status import show_status
from sweeps.launched_study import read_recorded

SHOWS = 'sh -c \'echo OMP=$OMP_NUM_THREADS PATH=$PYTHONPATH; exec "$0" "$@"\''
BUDGET = (
    "--trials", "2", "--seeds", "1", "--epochs", "60", "--snapshot", "--slurm.prefix", SHOWS, "--slurm.extra",
    "export=NONE", "--slurm.setup", 'test "$SLURMD_NODENAME" != n1',
)  # fmt: skip


@pytest.fixture
def running(cluster: DevCluster, tmp_path: Path) -> Iterator[FaultyStudy]:
    study = FaultyStudy(cluster, write_tiny_study(tmp_path / "study", rows=1), tmp_path / "runs", BUDGET)
    yield study
    study.stop_all()


def test_a_study_survives_a_bad_node_a_stripped_environment_and_a_renamed_job(
    running: FaultyStudy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running.running():
        job = running.wait_until_training()[0]
        running.cluster.run("scontrol", "update", f"JobId={job.id}", "JobName=important")
        monkeypatch.setattr("slurm.accounting.os.getuid", lambda: 65534)
        show_status(read_recorded(Root(running.root), "tiny"))
        status = capsys.readouterr().out
        monkeypatch.undo()
        for name, value in running.cluster.environment.items():
            monkeypatch.setenv(name, value)
    assert "RUNNING" in status, "another user sees the owner's jobs"
    done = attempts(running.root)
    assert {attempt.end for attempt in done} == {"complete", "not_started"}
    assert {attempt.submitted.node for attempt in done if attempt.end == "not_started"} == {"n1"}
    assert "n1" not in {attempt.node for attempt in done if attempt.end == "complete"}
    assert any(attempt.submitted.job == job.id and attempt.end == "complete" for attempt in done), "nothing ran twice"
    assert [len(said) for said in reported(running.root).values()] == [1, 1]
    (snapshot,) = running.root.glob("code/*/")
    for attempt in done:
        if attempt.end == "complete":
            assert attempt.ran.model_extra is not None
            assert attempt.ran.model_extra["code"] == source_digest(snapshot / "mmkd")
            assert attempt.ran.host == socket.gethostname()
    logs = [log.read_text() for log in running.root.glob("rows/*/trials/*/log/*.txt")]
    assert any(f"OMP=1 PATH={snapshot}" in log for log in logs), "the trial got its variables"


def test_slurm_says_before_a_launch_what_it_would_do_with_a_job(cluster: DevCluster, tmp_path: Path) -> None:
    job = Job("mmkd-test", ("python", "-c", ""), tmp_path / "log" / "1.txt")
    small = {"cpus": 1, "mem": "100M", "gpus": "0", "time": "5"}
    said = SlurmBackend(SlurmSettings.model_validate(small)).test_only(job)
    assert "to start at" in said
    for change, words in (
        ({"partition": "nowhere"}, "invalid partition.*choose one of sinfo's with --slurm.partition"),
        ({"mem": "900G"}, r"the job asked for cpus = 1, mem = 900G.*--slurm.*mem"),
    ):
        with pytest.raises(SubmissionRefused, match=words):
            SlurmBackend(SlurmSettings.model_validate({**small, **change})).test_only(job)
    assert not (tmp_path / "log").exists()
    assert not cluster.run("squeue", "-h", "-u", str(os.getuid()))


@pytest.mark.parametrize(
    "asked",
    [{"gpus": "1"}, {"gpus": "gpu:1"}, {"mem_per_cpu": "100M"}, {"mem": "none"}, {"nodelist": "n2"}],
)
def test_slurm_accepts_what_sites_ask_for(cluster: DevCluster, tmp_path: Path, asked: dict[str, str]) -> None:
    memory = {} if {"mem", "mem_per_cpu"} & asked.keys() else {"mem": "100M"}
    settings = SlurmSettings.model_validate({"cpus": 1, "gpus": "0", "time": "5", **memory, **asked})
    job = Job("mmkd-test", ("python", "-c", ""), tmp_path / "log" / "1.txt")
    assert "to start at" in SlurmBackend(settings).test_only(job)
