"""Kill anything at any moment: the same command goes on and ends with the same numbers, on real processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
from survival import broken, wait_for
from tiny_study import STUDY

from mmkd.attempts import read_attempts
from mmkd.rundir import TrialDir

LAUNCH = Path(__file__).parents[3] / "sweeps" / "launch.py"


def command(study_file: Path, root: Path) -> list[str]:
    options = ["--study", str(study_file), "--root", str(root), "--cluster", "local", "--device", "cpu"]
    return [sys.executable, str(LAUNCH), *options, "--trials", "2", "--seeds", "1", "--parallel", "2", "--epochs", "8"]


def launch(study_file: Path, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(study_file, root), capture_output=True, text=True, timeout=240)


def jobs_under(root: Path) -> list[psutil.Process]:
    """Living trial processes of a root, those that a worker forked included."""
    lines = ((process, " ".join(process.info["cmdline"] or [])) for process in psutil.process_iter(["cmdline"]))
    return [process for process, line in lines if "mmkd.trial" in line and str(root) in line]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    path = tmp_path_factory.mktemp("study") / "tiny.toml"
    path.write_text(f'data = "{tiny_data}"\n{STUDY}')
    return path


@pytest.fixture(scope="module")
def unbroken(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unbroken")
    done = launch(study, root)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def check(root: Path, unbroken: Path) -> None:
    """What must always be true of a root whose study is done."""
    assert broken(root, unbroken) == []
    assert jobs_under(root) == []


def test_an_unbroken_run_prints_its_table_and_a_relaunch_only_that(study: Path, unbroken: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in unbroken.glob("**/attempts/*")}
    again = launch(study, unbroken)
    assert again.returncode == 0
    assert "CRD on attention maps" in again.stdout
    assert "SYNTHETIC" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in unbroken.glob("**/attempts/*")} == before, "nothing ran"
    check(unbroken, unbroken)


@pytest.mark.parametrize("victims", ["controller", "trials", "both"])
def test_after_kill_9_the_same_command_ends_with_the_same_numbers(
    study: Path, unbroken: Path, tmp_path: Path, victims: str
) -> None:
    seeded = random.Random(victims)
    root = tmp_path / "runs"
    log = (tmp_path / "log").open("w")
    kills: Counter[str] = Counter()
    for _ in range(2):
        controller = subprocess.Popen(command(study, root), stdout=log, stderr=log)
        wait_for("a job", lambda: jobs_under(root), 60)
        time.sleep(seeded.uniform(0.0, 4.0))  # anywhere from a job's start-up to between two trials
        if victims != "controller":
            for job in jobs_under(root):
                job.kill()
                kills["trial"] += 1
        if victims == "trials":
            time.sleep(seeded.uniform(0.5, 2.0))  # the controller sees it, and goes on
        controller.kill()
        kills["controller"] += 1
        controller.wait()
    done = launch(study, root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert kills["controller"] == 2
    check(root, unbroken)


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(study: Path, unbroken: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    controller = subprocess.Popen(command(study, root), stdout=subprocess.PIPE, text=True)
    wait_for("an epoch", lambda: list(root.glob("**/metrics.jsonl")), 60)
    controller.send_signal(signal.SIGINT)
    said, _ = controller.communicate(timeout=60)
    assert controller.returncode == 130
    assert "stopped; run the same command again to resume" in said
    assert jobs_under(root) == []
    ends = [read_attempts(TrialDir(p.parent))[-1].end for p in root.glob("**/config.json")]
    assert set(ends) <= {"complete", "preempted", "node_fail"}
    assert launch(study, root).returncode == 0
    check(root, unbroken)


def test_a_torn_journal_and_a_truncated_checkpoint_are_healed(study: Path, unbroken: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    controller = subprocess.Popen(command(study, root), stdout=subprocess.DEVNULL)
    wait_for("a checkpoint", lambda: list(root.glob("rows/*/trials/0/checkpoint.pt")), 60)
    for job in jobs_under(root):
        job.kill()
    controller.kill()
    controller.wait()
    for journal in root.glob("rows/*/journal.log"):
        with journal.open("ab") as file:
            file.write(b'{"op_code": 5, "trial_i')
    for checkpoint in root.glob("**/checkpoint.pt"):
        os.truncate(checkpoint, checkpoint.stat().st_size // 2)
    for metrics in root.glob("**/metrics.jsonl"):
        with metrics.open("a") as file:
            file.write('{"epoch": 99, "train')
    assert launch(study, root).returncode == 0
    check(root, unbroken)


def test_the_numbers_differ_between_seeds(unbroken: Path) -> None:
    by_seed = {json.loads(p.read_text())["seed"]: p.parent for p in unbroken.glob("teachers/*/config.json")}
    logits = [h5py.File(by_seed[seed] / "result.h5")["predictions/valid/logits"][()] for seed in (0, 1)]
    assert not np.array_equal(*logits)
