"""A row's finished.jsonl says what the directories say, or nothing: torn, damaged, outdated lines do not count."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mmkd.attempts import read_attempts, record_run, record_submission
from mmkd.config import (
    ALGORITHM_VERSION,
    DataSource,
    Distillation,
    Network,
    StudentConfig,
    TeacherConfig,
    Training,
    to_json,
)
from mmkd.finished import add_finished, attempts_of, describe, read_finished, write_finished
from mmkd.result_file import Result, ResultError, Status, write_result
from mmkd.rundir import RowDir, TrialDir


def finish(trial: TrialDir, loss: float = 0.5, status: Status = Status.COMPLETE) -> None:
    """As controller and job leave a finished trial."""
    data = DataSource(path="/data/d.h5", fingerprint="f" * 64)
    common = {"data": data, "network": Network(), "training": Training(epochs=2), "seed": 0}
    config = StudentConfig(
        **common, primary="video", pairing="others", distillation=Distillation(method="crd", beta=0.25),
        teacher=TeacherConfig(**common, branch="audio"),
    )  # fmt: skip
    trial.path.mkdir(parents=True, exist_ok=True)
    record_submission(trial, 1, backend="slurm", job="7", submitted=1.0, devices=[0, 1])
    record_run(trial, 1, started=2.0, host="ñ\u0000日", versions={"torch": "2"})
    metrics = {} if status is Status.DIVERGED else {"valid": {"loss": loss, "recall_0": float("nan")}}
    reason = "epoch 1: the loss is nan" if status is Status.DIVERGED else ""
    write_result(trial, Result(status, to_json(config), reason, 2, 2, 10.0, 99, "cpu", "abc", metrics))
    record_run(trial, 1, end="complete", ended=12.0)
    record_submission(trial, 1, end="complete", gpu_seconds=20.0)


@pytest.fixture
def row(tmp_path: Path) -> RowDir:
    """Three finished trials, listed."""
    row = RowDir(tmp_path / "crd-00000000")
    for number, status in enumerate(Status):
        finish(row.trial(number), status=status)
    add_finished(row, [describe(trial)[0] for trial in row.trials()])
    return row


def held(row: RowDir) -> list[str]:
    """The trials whose lines hold; what they say is what the directories say."""
    found = read_finished(row).trials
    for name, line in found.items():
        trial = TrialDir(row.path / name)
        assert repr(line) == repr(describe(trial)[0])  # NaN is not equal to itself
        assert attempts_of(line) == read_attempts(trial)
    return sorted(found)


def test_lines_say_what_the_directories_say(row: RowDir) -> None:
    assert held(row) == ["trials/0", "trials/1", "trials/2"]
    assert read_finished(row).is_clean
    line = read_finished(row).trials["trials/0"]
    assert (line.facts.beta, line.facts.branch, line.metrics["valid"]["loss"]) == (0.25, "audio", 0.5)
    assert line.attempts[0].ran.host == "ñ\u0000日"


def test_a_row_without_the_file_has_no_lines_and_needs_no_rewriting(tmp_path: Path) -> None:
    assert read_finished(RowDir(tmp_path)).trials == {}
    assert read_finished(RowDir(tmp_path)).is_clean


@pytest.mark.parametrize("cut", [1, 2, 100])
def test_a_torn_last_line_does_not_count_and_the_next_one_does(row: RowDir, cut: int) -> None:
    content = row.finished.read_bytes()
    row.finished.write_bytes(content[:-cut])
    if cut > 1:  # without its end alone, the line is whole
        assert held(row) == ["trials/0", "trials/1"]
    assert not read_finished(row).is_clean
    finish(row.trial(3))
    add_finished(row, [describe(row.trial(3))[0]])
    assert "trials/3" in held(row)
    assert held(row)[:2] == ["trials/0", "trials/1"]


GARBAGE = {
    "no JSON": b"\x00\xff garbage",
    "zeros, as after a crash of the machine": bytes(4096),
    "a list": b"[]",
    "a number": b"5",
    "lists in lists": b"[" * 100_000,
    "two values": b"{},{}",
    "of other content": b'{"format": 1, "directory": "trials/1"}',
}


@pytest.mark.parametrize("case", GARBAGE)
def test_a_line_of_garbage_hides_no_other(row: RowDir, case: str) -> None:
    lines = row.finished.read_bytes().split(b"\n")
    row.finished.write_bytes(b"\n".join([lines[0], GARBAGE[case], *lines[1:]]))
    assert held(row) == ["trials/0", "trials/1", "trials/2"]
    assert not read_finished(row).is_clean


def test_no_flipped_bit_is_believed(row: RowDir) -> None:
    content = row.finished.read_bytes()
    before = {name: repr(line) for name, line in read_finished(row).trials.items()}
    for bit in range(0, 8 * len(content), 37):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        row.finished.write_bytes(flipped)
        for name, line in read_finished(row).trials.items():
            assert repr(line) == before[name]


def another_size(result: Path) -> None:
    result.write_bytes(result.read_bytes() + b"x")


def another_time(result: Path) -> None:
    os.utime(result, ns=(1, result.stat().st_mtime_ns + 1))


def the_same_size_and_time(result: Path) -> None:
    before = result.stat()
    copy = result.with_name("copy")
    shutil.copy2(result, copy)
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(copy, result)  # the inode alone tells


def changed_within(result: Path) -> None:
    content = bytearray(result.read_bytes())
    content[500] ^= 1
    result.write_bytes(content)


def gone(result: Path) -> None:
    result.unlink()


def gone_with_its_directory(result: Path) -> None:
    shutil.rmtree(result.parent)


def replaced_by_a_directory(result: Path) -> None:
    result.unlink()
    result.mkdir()


@pytest.mark.parametrize(
    "change",
    [
        another_size, another_time, the_same_size_and_time, changed_within, gone, gone_with_its_directory,
        replaced_by_a_directory,
    ],
)  # fmt: skip
def test_a_line_does_not_outlive_its_result(row: RowDir, change: Callable[[Path], None]) -> None:
    change(row.trial(1).result)
    assert sorted(read_finished(row).trials) == ["trials/0", "trials/2"]
    assert not read_finished(row).is_clean


def test_the_last_line_about_a_trial_counts(row: RowDir) -> None:
    finish(row.trial(1), loss=0.25)
    add_finished(row, [describe(row.trial(1))[0]])
    assert held(row) == ["trials/0", "trials/1", "trials/2"]
    assert read_finished(row).trials["trials/1"].metrics["valid"]["loss"] == 0.25
    assert not read_finished(row).is_clean
    write_finished(row, read_finished(row).trials.values())
    assert read_finished(row).is_clean
    assert held(row) == ["trials/0", "trials/1", "trials/2"]


@pytest.mark.parametrize(("key", "value"), [("format", 2), ("format", 0), ("algorithm", ALGORITHM_VERSION + 1)])
def test_lines_of_another_format_or_algorithm_do_not_hold(row: RowDir, key: str, value: int) -> None:
    write_finished(row, [line.model_copy(update={key: value}) for line in read_finished(row).trials.values()])
    assert read_finished(row).trials == {}


def test_who_is_careful_sees_that_an_attempts_record_changed(row: RowDir) -> None:
    record_submission(row.trial(1), 1, gpu_seconds=21.0)
    assert sorted(read_finished(row).trials) == ["trials/0", "trials/1", "trials/2"]
    assert sorted(read_finished(row, careful=True).trials) == ["trials/0", "trials/2"]


def test_a_trial_whose_records_may_change_is_not_for_keeps(row: RowDir) -> None:
    finish(row.trial(3))
    assert describe(row.trial(3))[1]
    record_submission(row.trial(3), 2, backend="slurm")
    assert not describe(row.trial(3))[1]
    record_run(row.trial(3), 2, end="complete")  # the controller that announced it has yet to note so
    assert not describe(row.trial(3))[1]
    record_submission(row.trial(3), 2, end="complete")
    assert describe(row.trial(3))[1]


def test_a_damaged_result_gets_no_line(row: RowDir) -> None:
    changed_within(row.trial(1).result)
    with pytest.raises(ResultError, match="checksum"):
        describe(row.trial(1))
