"""The development cluster is a real Slurm: jobs get GPUs, are accounted, preempted and killed; nothing stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from slurm.devcluster import ClusterError, DevCluster, Options, Refused, attach, up
from slurm.devcluster.__main__ import main, make_parser

COMMAND = [sys.executable, "-m", "slurm.devcluster"]
HOG = f"{sys.executable} -c 'import time; hog = bytearray(300_000_000); time.sleep(60)'"
SLEEPS_THROUGH_SIGNALS = "trap '' TERM CONT; while :; do sleep 0.1; done"


def submit(cluster: DevCluster, script: str, log: Path, *flags: str) -> str:
    return cluster.run("sbatch", "--parsable", f"--output={log}", *flags, "--wrap", script).strip()


def wait_until(is_true: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def state(cluster: DevCluster, job: str) -> str:
    return cluster.run("squeue", "-h", "-t", "all", "-o", "%T", "-j", job).strip()


def accounted(cluster: DevCluster, job: str, fields: str) -> list[list[str]]:
    return [line.split("|") for line in cluster.run("sacct", "-n", "-P", "-j", job, "-o", fields).splitlines()]


def text(log: Path) -> str:
    return log.read_text() if log.exists() else ""


def processes_of(path: Path) -> list[str]:
    """All living processes with the path in their command line, environment or working directory, ourselves apart."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "cwd"]):
        facts = str([process.info[key] for key in ("cmdline", "environ", "cwd")])
        if str(path) in facts and process.pid != os.getpid():
            found.append(f"{process.pid} {process.info['cmdline']}")
    return found


def test_jobs_on_one_node_see_their_own_gpu_and_accounting_knows_them(cluster: DevCluster, tmp_path: Path) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES; sleep 1"
    logs = [tmp_path / "first", tmp_path / "second"]
    jobs = [submit(cluster, script, log, "--gpus-per-node=1", "--nodelist=n2") for log in logs]

    wait_until(lambda: [state(cluster, job) for job in jobs] == ["COMPLETED", "COMPLETED"])

    assert sorted(text(log).strip() for log in logs) == ["0", "1"]
    wait_until(lambda: accounted(cluster, jobs[0], "State")[0] == ["COMPLETED"])
    (row, *_) = accounted(cluster, jobs[0], "State,NodeList,AllocTRES")
    assert row[1] == "n2"
    assert "gres/gpu=1" in row[2]


def test_an_urgent_job_takes_the_gpus_of_one_that_may_not_be_requeued(cluster: DevCluster, tmp_path: Path) -> None:
    victim_log, urgent_log = tmp_path / "victim", tmp_path / "urgent"
    flags = ("--gpus-per-node=2", "--nodelist=n1")
    victim = submit(
        cluster, "trap 'echo told; exit' TERM; echo ready; sleep 60 & wait", victim_log, "--no-requeue", *flags
    )
    wait_until(lambda: "ready" in text(victim_log))

    urgent = submit(cluster, "echo here", urgent_log, "--partition=urgent", *flags)

    wait_until(lambda: state(cluster, urgent) == "COMPLETED")
    assert "told" in text(victim_log)
    wait_until(lambda: accounted(cluster, victim, "State")[0] == ["PREEMPTED"])


def test_a_job_beyond_its_memory_is_out_of_memory(cluster: DevCluster, tmp_path: Path) -> None:
    if not cluster.options.cgroup:
        pytest.skip("no cgroup v1 memory hierarchy that we may write")

    job = submit(cluster, HOG, tmp_path / "log", "--mem=100")

    wait_until(lambda: state(cluster, job) == "OUT_OF_MEMORY")


def test_without_cgroups_memory_is_polled_and_the_job_fails(second_folder: Path, tmp_path: Path) -> None:
    cluster = up(Options(nodes=1, accounting=False), second_folder)

    job = submit(cluster, HOG, tmp_path / "log", "--mem=100")

    wait_until(lambda: state(cluster, job) == "FAILED")
    assert "Exceeded job memory limit" in text(tmp_path / "log")


def test_a_full_submit_limit_refuses_the_next_job_in_slurms_words(cluster: DevCluster, tmp_path: Path) -> None:
    cluster.set_max_submit(1)
    submit(cluster, "sleep 60", tmp_path / "log")

    with pytest.raises(ClusterError, match="QOSMaxSubmitJobPerUserLimit"):
        submit(cluster, "sleep 60", tmp_path / "log")

    cluster.restore()
    submit(cluster, "true", tmp_path / "log")


def test_a_job_outlives_controller_and_accounting(cluster: DevCluster, tmp_path: Path) -> None:
    job = submit(cluster, "sleep 5; echo lived", tmp_path / "log")
    wait_until(lambda: state(cluster, job) == "RUNNING")

    cluster.stop("slurmctld")
    cluster.stop("slurmdbd")
    with pytest.raises(ClusterError, match="Connection refused"):
        accounted(cluster, job, "State")
    cluster.start("slurmdbd")
    cluster.start("slurmctld")

    wait_until(lambda: state(cluster, job) == "COMPLETED")
    assert text(tmp_path / "log") == "lived\n"


def test_a_lost_node_fails_its_job_and_takes_jobs_again(cluster: DevCluster, tmp_path: Path) -> None:
    beat = "while :; do date +%s >> $0; sleep 0.1; done"
    lost = submit(cluster, f"bash -c '{beat}' {tmp_path}/beat", tmp_path / "lost", "--no-requeue", "--nodelist=n3")
    other = submit(cluster, "sleep 60", tmp_path / "other", "--nodelist=n4")
    wait_until(lambda: state(cluster, other) == "RUNNING" and text(tmp_path / "beat"))

    cluster.lose_node("n3")

    assert state(cluster, lost) == "NODE_FAIL"
    assert processes_of(tmp_path / "beat") == []
    cluster.start("n3")
    job = submit(cluster, "true", tmp_path / "log", "--nodelist=n3")
    wait_until(lambda: state(cluster, job) == "COMPLETED")
    assert state(cluster, other) == "RUNNING"


def test_up_again_keeps_what_runs_and_starts_what_is_gone(cluster: DevCluster) -> None:
    before = {name: process.pid for name, process in cluster.running_daemons().items()}
    cluster.kill_slurmd("n4")

    up(cluster.options, cluster.directory)

    after = {name: process.pid for name, process in cluster.running_daemons().items()}
    assert list(after) == ["munged", "mariadbd", "slurmdbd", "slurmctld", "n1", "n2", "n3", "n4"]
    assert {name for name in after if after[name] != before[name]} == {"n4"}
    with pytest.raises(Refused, match=r"runs with (--cgroup|the default options); take it down first"):
        up(Options(nodes=1), cluster.directory)


def test_a_clusters_options_are_named_as_they_are_typed() -> None:
    changed = Options(nodes=1, memory_per_node=500, grace=4, cgroup=True, accounting=False)
    assert changed.as_words() == "--nodes 1 --memory-per-node 500 --grace 4 --no-accounting --cgroup"
    assert Options().as_words() == "the default options"
    assert make_parser().parse_args(["up", *changed.as_words().split()]).grace == 4


def test_the_command_brings_a_second_cluster_up_and_leaves_no_process(second_folder: Path, tmp_path: Path) -> None:
    where = ["--folder", str(second_folder)]
    small = ["--nodes", "1", "--gpus-per-node", "1", "--no-accounting"]
    done = subprocess.run([*COMMAND, "up", *small, *where], capture_output=True, text=True, check=True)
    assert done.stdout == f"export SLURM_CONF={second_folder}/slurm.conf\n"
    cluster = attach(second_folder)
    job = submit(
        cluster, f"{SLEEPS_THROUGH_SIGNALS} & setsid {COMMAND[0]} -c 'import time; time.sleep(600)'", tmp_path / "log"
    )
    assert job == "1"
    wait_until(lambda: state(cluster, job) == "RUNNING")
    wait_until(lambda: len(processes_of(second_folder)) >= 7)  # munged, slurmctld, slurmd, slurmstepd, shells, python
    assert main(["status", *where]) == 0

    assert main(["down", *where]) == 0

    assert processes_of(second_folder) == []
    assert main(["status", *where]) == 1


def test_a_daemon_that_does_not_start_is_reported_with_its_last_words(second_folder: Path) -> None:
    second_folder.mkdir(mode=0o700)
    (second_folder / "lock").touch()
    (second_folder / "munge.key").write_text("short")
    (second_folder / "munge.key").chmod(0o600)

    with pytest.raises(ClusterError, match=r"(?s)munged ended; .*munged.log:.*[Kk]ey"):
        up(Options(nodes=1, accounting=False), second_folder)


def test_what_cannot_be_is_refused_in_one_line(
    cluster_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as name:
        thesis = Path(name) / "thesis.tex"
        thesis.touch()
        refused = {
            "--nodes 0": ["up", "--nodes", "0"],
            "--no-accounting": ["up", "--no-accounting", "--max-submit", "3"],
            "not a cluster's": ["up", "--fresh", "--folder", name],
            "too long": ["up", "--folder", f"{name}/{'long' * 20}"],
            "no cluster": ["status", "--folder", name],
        }
        for word, arguments in refused.items():
            assert main(arguments) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert word in line
        assert thesis.exists()

        monkeypatch.setattr("slurm.devcluster.packages.PROVIDES", {"munge": ("no-such-program",)})
        monkeypatch.setattr("slurm.devcluster.packages.can_install", lambda: False)
        assert main(["up", "--folder", f"{name}/cluster"]) == 2
        assert "missing: munge" in capsys.readouterr().err

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main(["up"]) == 2
    assert "needs root" in capsys.readouterr().err
