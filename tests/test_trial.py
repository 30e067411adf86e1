"""The command that every job runs: `python -m mmkd.trial DIR`."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from mmkd.attempts import read_attempts
from mmkd.config import StudentConfig, TeacherConfig, identity
from mmkd.files import read_json, write_json
from mmkd.lock import FileLock, is_held
from mmkd.metrics_log import read_metrics
from mmkd.result_file import Status, read_result
from mmkd.rundir import TrialDir
from mmkd.stored_text import fixed
from mmkd.training.lesson import prepare_torch
from mmkd.trial import EXIT_BAD_INPUT, EXIT_ERROR, EXIT_FINISHED, EXIT_RESUME, main

if TYPE_CHECKING:
    from tests.conftest import Lab

    Numbers = Callable[[TrialDir], dict[str, Any]]

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    """`main` takes over the signals of its process, which is ours here."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def command(place: TrialDir, *options: str) -> int:
    return main([str(place.path), *options])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    line = capsys.readouterr().err
    assert line.count("\n") == 1, line
    return line


# --- killed and told to end


def test_a_real_process_that_is_killed_at_random_moments_ends_with_the_same_numbers(
    lab: Lab, numbers_of: Numbers
) -> None:
    config = lab.student("crd", level="final", training={"epochs": 16, "patience": 1, "learning_rate": 0.05})
    expected = numbers_of(lab.run(config, 1))
    place = lab.place(config, 0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "mmkd.trial", str(place.path)]
    chance = random.Random()  # truly random moments; the numbers must not depend on them
    moments = sorted(chance.sample(range(1, 13), 2))
    for kill, number in zip(moments, (signal.SIGKILL, signal.SIGTERM), strict=True):
        process = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE)
        while len(read_metrics(place)) < kill and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.03))
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else EXIT_RESUME), errors.decode()
        assert not place.result.exists()
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (EXIT_FINISHED, "")
    first, *_, last = done.stdout.splitlines()
    assert re.fullmatch(r"epoch \d+/\d+: valid loss \d+\.\d{4}, accuracy [01]\.\d{4}", first)
    assert last == f"{place.path}: complete"
    assert numbers_of(place) == expected
    assert [line["epoch"] for line in read_metrics(place)] == list(range(1, 17))
    assert not place.checkpoint.exists()
    assert not is_held(place.lock)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_run_with_a_checkpoint_and_75_and_the_next_call_goes_on(
    number: signal.Signals, lab: Lab, numbers_of: Numbers, capsys: pytest.CaptureFixture[str]
) -> None:
    config = lab.student("crd", level="attention_maps", settings={"rows": 1})
    expected = numbers_of(lab.run(config, 1))
    place = lab.place(config, 0)
    made = []

    def signal_after_four(*_: object) -> None:
        made.append(None)
        if len(made) == 4:
            os.kill(os.getpid(), number)

    hook = register_optimizer_step_post_hook(signal_after_four)
    capsys.readouterr()
    assert command(place) == EXIT_RESUME
    assert said(capsys) == "asked to end in epoch 2, step 1 of 3\n"
    assert place.checkpoint.exists()
    (attempt,) = read_attempts(place)
    why = "timeout" if number == signal.SIGUSR2 else "preempted"  # Slurm's word before a time limit
    assert (attempt.number, attempt.end) == (0, why)
    assert command(place) == EXIT_FINISHED
    hook.remove()
    assert len(made) == 9
    assert numbers_of(place) == expected


# --- what stands in the records


def test_a_finished_run_leaves_its_story(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    place = lab.place(lab.student())
    place.attempt.write_text("3\n")
    started = time.time()
    assert command(place) == EXIT_FINISHED
    assert capsys.readouterr().out.splitlines()[-1] == f"{place.path}: complete"
    (attempt,) = read_attempts(place)
    assert (attempt.number, attempt.end, attempt.message) == (3, "complete", "")
    assert attempt.ran.pid == os.getpid()
    assert attempt.ran.versions["torch"] == torch.__version__
    assert started <= attempt.ran.started <= attempt.ran.ended <= time.time()
    assert attempt.ran.seconds == pytest.approx(attempt.ran.ended - attempt.ran.started, abs=0.1)
    result = read_result(place.result)
    assert result.config == json.loads(place.config.read_text())
    assert result.device == "cpu"
    assert 0 < result.seconds <= attempt.ran.seconds
    assert {p.name for p in place.path.iterdir()} == {
        "config.json", "attempt", "attempts", "metrics.jsonl", "weights.pt", "result.h5",
    }  # fmt: skip


def test_a_finished_run_that_is_called_again_does_nothing(lab: Lab) -> None:
    place = lab.place(lab.student())
    assert command(place) == EXIT_FINISHED
    before = {p: p.read_bytes() for p in place.path.rglob("*") if p.is_file()}
    assert command(place) == EXIT_FINISHED
    assert {p: p.read_bytes() for p in place.path.rglob("*") if p.is_file()} == before


def test_a_diverged_run_is_a_result_and_no_error(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    place = lab.place(lab.student(training={"learning_rate": 1e30}))
    assert command(place) == EXIT_FINISHED
    assert capsys.readouterr().out.splitlines()[-1] == f"{place.path}: diverged"
    assert read_result(place.result).status is Status.DIVERGED
    assert read_attempts(place)[0].end == "complete"


def test_a_superseded_attempt_ends_and_tells_only_its_own_record(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    place = lab.place(lab.student())
    place.attempt.write_text("5\n")
    assert command(place, "--attempt", "4") == EXIT_RESUME
    assert "attempt 5 has taken over from 4" in said(capsys)
    assert {p.name for p in place.path.iterdir()} == {"config.json", "attempt", "attempts"}
    (attempt,) = read_attempts(place)
    assert (attempt.number, attempt.end) == (4, "cancelled")


def test_an_unforeseen_error_is_told_with_its_traceback_and_recorded(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the disk is on fire\nsecond line")

    monkeypatch.setattr("mmkd.trial.make_lesson", broken)
    place = lab.place(lab.student())
    assert command(place) == EXIT_ERROR
    assert "Traceback" in capsys.readouterr().err
    assert read_attempts(place)[0].end == "error"
    assert re.match(
        r"RuntimeError: the disk is on fire \(.*mmkd/trial\.py, line \d+\)$", read_attempts(place)[0].message
    )
    assert not is_held(place.lock)


def test_running_out_of_memory_is_a_class_of_its_own(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("mmkd.trial.make_lesson", hungry)
    place = lab.place(lab.student())
    assert command(place) == EXIT_ERROR
    assert read_attempts(place)[0].end == "out_of_memory"


def test_a_trial_that_runs_already_is_refused_with_its_holder(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmkd.trial.LOCK_PATIENCE", 0.3)
    place = lab.place(lab.student())
    with FileLock(place.lock):
        assert command(place) == EXIT_BAD_INPUT
    line = said(capsys)
    assert f"held by process {os.getpid()} on " in line
    assert "this trial runs already" in line
    assert not place.attempts.exists()


def test_a_job_that_an_earlier_attempts_process_keeps_waiting_ends_as_one_whose_node_failed(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmkd.trial.LOCK_PATIENCE", 0.3)
    place = lab.place(lab.student())
    place.attempt.write_text("2\n")
    with FileLock(place.lock):
        assert command(place, "--attempt", "2") == EXIT_RESUME
    assert "an earlier attempt still runs there" in said(capsys)
    assert read_attempts(place)[0].end == "node_fail"


def test_a_superseded_job_that_waits_for_its_turn_does_not_wait_on(lab: Lab) -> None:
    place = lab.place(lab.student())
    place.attempt.write_text("3\n")
    with FileLock(place.lock):
        assert command(place, "--attempt", "2") == EXIT_RESUME
    assert read_attempts(place)[0].end == "cancelled"


def test_a_superseded_run_ends_in_the_middle_of_an_epoch(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmkd.trial.ATTEMPT_SECONDS", 0.0)
    place = lab.place(lab.student())
    steps = []

    def supersede(*_: object) -> None:
        steps.append(None)
        if len(steps) == 2:
            place.attempt.write_text("1\n")

    hook = register_optimizer_step_post_hook(supersede)
    assert command(place, "--attempt", "0") == EXIT_RESUME
    hook.remove()
    assert len(steps) == 2
    assert read_metrics(place) == []


# --- what cannot be run


def refused(place: TrialDir, capsys: pytest.CaptureFixture[str]) -> str:
    """The one clear line, where nothing but a record was left."""
    assert command(place) == EXIT_BAD_INPUT
    assert not place.result.exists()
    assert not place.checkpoint.exists()
    assert not is_held(place.lock)
    return said(capsys)


def test_a_directory_without_configuration_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path / 'config.json'}: no such file" in refused(TrialDir(tmp_path), capsys)


@pytest.mark.parametrize("content", ["", '{"role": "stud', "[]", '{"role": "student", "seed": NaN}'])
def test_a_damaged_configuration_is_refused(content: str, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    place = lab.place(lab.student())
    place.config.write_text(content)
    assert str(place.config) in refused(place, capsys)


def test_a_missing_data_file_is_refused(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    place = lab.place(lab.student(data={"path": "/nowhere/d.h5", "fingerprint": lab.fingerprint}))
    assert "/nowhere/d.h5: no such data file" in refused(place, capsys)


def test_changed_data_are_refused(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.h5"
    shutil.copy(lab.data, other)
    with h5py.File(other, "a") as file:
        file.attrs["fingerprint"] = fixed("e" * 64)
    place = lab.place(lab.student(data={"path": str(other), "fingerprint": lab.fingerprint}))
    line = refused(place, capsys)
    assert f"{other}: fingerprint eeeeeeeeeeee, but the trial was made for {lab.fingerprint[:12]}" in line
    assert "the data set has changed" in line


def test_a_method_without_its_teacher_in_the_configuration_is_refused(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    place = lab.place(lab.student("crd", teacher=None))
    assert "method crd needs a teacher, and the file names none" in refused(place, capsys)


def test_an_untrained_teacher_is_refused_and_how_to_train_it_is_said(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = lab.teacher(seed=8)
    place = lab.place(lab.student("crd", teacher=teacher))
    directory = lab.root.teacher(identity(teacher)).path
    line = refused(place, capsys)
    assert f"{directory}: no finished trial here" in line
    assert f"'python -m mmkd.trial {directory}'" in line


def test_a_diverged_teacher_is_refused(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = lab.teacher(training={"learning_rate": 1e30})
    lab.run(teacher)
    capsys.readouterr()
    line = refused(lab.place(lab.student("crd", teacher=teacher)), capsys)
    assert "this trial is diverged (epoch 1: the classification loss of train is nan)" in line


@pytest.mark.parametrize("damage", ["another network's", "truncated", "missing", "result truncated"])
def test_a_teacher_whose_files_were_tampered_with_is_refused(
    damage: str, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = lab.root.teacher(identity(lab.teacher()))
    if damage == "another network's":
        other = lab.run(lab.teacher(seed=1, training={"epochs": 1}))
        shutil.copy(other.weights, teacher.weights)
    elif damage == "truncated":
        teacher.weights.write_bytes(teacher.weights.read_bytes()[:-10])
    elif damage == "missing":
        teacher.weights.unlink()
    else:
        teacher.result.write_bytes(teacher.result.read_bytes()[:-100])
    capsys.readouterr()
    line = refused(lab.place(lab.student("crd")), capsys)
    assert str(teacher.path) in line
    expected = {"missing": "missing, although result.h5 is there", "result truncated": "no finished trial here"}
    assert expected.get(damage, "not the weights that result.h5 names") in line


def test_weights_that_do_not_fit_are_refused_though_the_result_names_them(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    config = lab.teacher()
    teacher = lab.root.teacher(identity(config))
    other = lab.run(lab.teacher(network={"layers": 1}, training={"epochs": 1}))
    shutil.copy(other.weights, teacher.weights)
    shutil.copy(other.result, teacher.result)
    capsys.readouterr()
    assert "does not fit its configuration" in refused(lab.place(lab.student("crd")), capsys)


@pytest.mark.parametrize(
    ("variables", "device", "warned"),
    [
        ({"SLURM_JOB_GPUS": "0", "CUDA_VISIBLE_DEVICES": "0"}, "auto", "SLURM_JOB_GPUS=0"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1a2b"}, "auto", "CUDA_VISIBLE_DEVICES=GPU-1a2b"),
        ({"SLURM_GPUS_ON_NODE": "2"}, "auto", "SLURM_GPUS_ON_NODE=2"),
        ({"SLURM_GPUS_ON_NODE": "0", "CUDA_VISIBLE_DEVICES": "NoDevFiles"}, "auto", ""),
        ({"CUDA_VISIBLE_DEVICES": ""}, "auto", ""),
        ({"SLURM_JOB_GPUS": "0"}, "cpu", ""),
    ],
)
def test_a_job_whose_gpus_torch_does_not_see_is_warned_and_trains_on_the_cpu(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    variables: dict[str, str], device: str, warned: str,
) -> None:  # fmt: skip
    for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert prepare_torch(lab.student(device=device)).type == "cpu"
    log = capsys.readouterr().err
    assert log.startswith(f"warning: this job was given GPUs ({warned}) and torch sees none") if warned else log == ""
    assert log.count("\n") == bool(warned)


def test_cuda_is_refused_where_there_is_none(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    place = lab.place(lab.student(device="cuda"))
    assert "device = 'cuda', but this machine shows no CUDA device" in refused(place, capsys)


# --- test is read once


@pytest.fixture
def lab_without_test(lab: Lab, tmp_path: Path) -> Lab:
    """The same data, of whose test split no sequence can be used."""
    from dataclasses import replace

    data = tmp_path / "without_test.h5"
    shutil.copy(lab.data, data)
    with h5py.File(data, "a") as file:
        for values in file["test/arrays"].values():
            values[...] = float("nan")
    return replace(lab, data=data)


@pytest.mark.parametrize("make", [lambda lab, **o: lab.teacher(seed=4, **o), lambda lab, **o: lab.student("crd", **o)])
def test_a_tuning_run_never_touches_the_test_split(
    make: Callable[..., TeacherConfig | StudentConfig], lab: Lab, lab_without_test: Lab, numbers_of: Numbers
) -> None:
    config = make(lab)
    place = lab.run(config)
    expected = numbers_of(place)
    assert set(expected["metrics"]) == set(expected["predictions"]) == {"valid"}
    shutil.rmtree(place.path)
    place = lab_without_test.place(make(lab_without_test))
    assert command(place) == EXIT_FINISHED
    assert numbers_of(place) == expected
    # A confirming run does read it: the file above is one on which that fails.
    confirming = lab_without_test.place(make(lab_without_test, evaluate_test=True), 1)
    assert command(confirming) != EXIT_FINISHED
    assert not confirming.result.exists()


def test_a_confirming_run_evaluates_the_tuned_weights_on_test_and_changes_nothing_else(
    lab: Lab, numbers_of: Numbers
) -> None:
    tuning = numbers_of(lab.run(lab.student(), 0))
    confirming = numbers_of(lab.run(lab.student(evaluate_test=True), 1))
    assert set(confirming["metrics"]) == set(confirming["predictions"]) == {"valid", "test"}
    for part in ("curves", "weights", "lines"):
        assert confirming[part] == tuning[part]
    assert confirming["metrics"]["valid"] == tuning["metrics"]["valid"]


def test_the_configuration_on_disk_is_what_is_run(lab: Lab) -> None:
    """The command takes everything from its directory, which may have been moved as a whole."""
    place = lab.place(lab.student("crd", level="final"))
    moved = lab.root.path.with_name("moved")
    lab.root.path.rename(moved)
    here = TrialDir(moved / place.path.relative_to(lab.root.path))
    assert command(here) == EXIT_FINISHED
    value = read_json(here.config)
    assert value is not None
    write_json(here.config, value)
    assert read_result(here.result).config == value
