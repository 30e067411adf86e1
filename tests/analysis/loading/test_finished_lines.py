"""A row's finished.jsonl gives what the directories give; every change is noticed, and it is never in the way."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from roots import Lab, fail, finish, student_config

from analysis import load
from analysis.loading import read_row
from analysis.loading.read_trial import Reading, read_trial
from analysis.loading.runs import Runs
from mmkd.attempts import record_submission
from mmkd.lock import FileLock
from mmkd.metrics_log import append_metrics
from mmkd.rundir import RowDir, TrialDir

FRAMES = ("rows", "trials", "curves", "attempts", "rejected")


def lines_of(lab: Lab) -> list[Path]:
    return sorted(lab.path.glob("rows/*/finished.jsonl"))


def assert_equal(ours: Runs, theirs: Runs) -> None:
    for name in FRAMES:
        pd.testing.assert_frame_equal(getattr(ours, name), getattr(theirs, name))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories of the rows' trials that are read from now on."""
    names: list[str] = []

    def noted(root: Path, directory: str) -> Reading:
        names.append(directory)
        return read_trial(root, directory)

    monkeypatch.setattr(read_row, "read_trial", noted)
    return names


@pytest.fixture
def varied(ablation: Lab) -> Lab:
    """Also a running trial, a failed one, one that cannot be read, and text in every script."""
    row = ablation.row_of("crd")
    fail(row.trial(2), student_config(0, None), "timeout")
    append_metrics(row.trial(2), {"epoch": 1, "valid_loss": 0.9, "odd metric/β": 1.5})
    record_submission(row.trial(2), 1, node="ñ\u0000日", devices=[0, 1], gpu_seconds=3.5, preempted=True)
    row.trial(3).path.mkdir()
    finish(row.trial(4), student_config(0, None), 0.5)
    row.trial(4).result.write_bytes(b"no HDF5")
    return ablation


def test_what_comes_out_of_the_cache_is_what_the_files_say(varied: Lab, read: list[str]) -> None:
    fresh = load(varied.path, cache=False)
    assert_equal(load(varied.path), fresh)
    read.clear()
    assert_equal(load(varied.path), fresh)
    assert read == unlisted(varied)


def unlisted(lab: Lab, *others: int) -> list[str]:
    """The trials of `varied` that are not finished or cannot be read, and others, by number."""
    row = lab.row_of("crd").path.name
    return [f"rows/{row}/trials/{number}" for number in sorted({2, 3, 4, *others})]


def changed(row: Path) -> None:
    finish(TrialDir(row / "trials" / "1"), student_config(0, None, learning_rate=1e-3), 0.6)


def changed_to_the_same_size_at_the_same_time(row: Path) -> None:
    result = row / "trials" / "1" / "result.h5"
    before = result.stat()
    changed(row)
    assert result.stat().st_size == before.st_size
    os.utime(result, ns=(before.st_atime_ns, before.st_mtime_ns))  # the inode alone tells


def an_epoch_more(row: Path) -> None:
    append_metrics(TrialDir(row / "trials" / "2"), {"epoch": 2, "valid_loss": 0.8})


def an_attempt_more(row: Path) -> None:
    record_submission(TrialDir(row / "trials" / "2"), 2, gpu_seconds=1.0)


def added(row: Path) -> None:
    finish(TrialDir(row / "trials" / "11"), student_config(0, None), 0.6)


def repaired(row: Path) -> None:
    finish(TrialDir(row / "trials" / "4"), student_config(0, None), 0.6)


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (changed, 1),
        (changed_to_the_same_size_at_the_same_time, 1),
        (an_epoch_more, 2),
        (an_attempt_more, 2),
        (added, 11),
        (repaired, 4),
    ],
)
def test_a_change_is_noticed_and_nothing_else_is_read_again(
    varied: Lab, read: list[str], change: Callable[[Path], None], number: int
) -> None:
    load(varied.path)
    read.clear()
    row = varied.row_of("crd").path
    change(row)
    found = load(varied.path)
    assert read == unlisted(varied, number)
    assert_equal(found, load(varied.path, cache=False))
    assert_equal(load(varied.path), found)


def test_a_deleted_trial_is_gone(varied: Lab, read: list[str]) -> None:
    load(varied.path)
    read.clear()
    shutil.rmtree(varied.row_of("crd").trial(1).path)
    found = load(varied.path)
    assert read == unlisted(varied)
    assert_equal(found, load(varied.path, cache=False))
    assert [name.rpartition("/")[2] for name in found.trials.query("kind == 'tuning'")["directory"]][:2] == ["0", "2"]


def test_a_new_winner_needs_no_reading(varied: Lab, read: list[str]) -> None:
    load(varied.path)
    read.clear()
    row = varied.row_of("crd")
    varied.choose(row, {1: row.final_run(1, "12345678")})
    superseded = load(varied.path).trials.query("superseded")["directory"]
    assert [name.rpartition("/")[2] for name in superseded] == [f"{seed}-abcdef01" for seed in (1, 2, 3)]
    assert read == unlisted(varied)


@pytest.mark.parametrize("content", [b"", b"no JSON\n", b'{"format": 1'])
def test_a_file_that_cannot_be_read_is_made_anew(ablation: Lab, read: list[str], content: bytes) -> None:
    fresh = load(ablation.path)
    for path in lines_of(ablation):
        path.write_bytes(content)
    assert_equal(load(ablation.path), fresh)
    read.clear()
    assert_equal(load(ablation.path), fresh)
    assert read == []


def test_a_line_of_other_content_is_read_anew_and_replaced(ablation: Lab, read: list[str]) -> None:
    load(ablation.path)
    path = lines_of(ablation)[0]
    path.write_text(path.read_text().replace('"format":1', '"format":0', 1))
    read.clear()
    load(ablation.path)
    assert len(read) == 1
    assert '"format":0' not in path.read_text()


def test_without_cache_nothing_is_written_or_believed(ablation: Lab, read: list[str]) -> None:
    load(ablation.path, cache=False)
    assert lines_of(ablation) == []
    load(ablation.path)
    read.clear()
    load(ablation.path, cache=False)
    assert len(read) == 10


def test_while_a_controller_is_at_work_it_alone_writes(ablation: Lab) -> None:
    with FileLock(ablation.row_of("crd").lock):
        load(ablation.path)
        assert [path.parent.name for path in lines_of(ablation)] == [ablation.row_of("none").path.name]


def test_a_root_that_cannot_be_written_is_read_all_the_same(ablation: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(row: RowDir, lines: object) -> None:
        raise PermissionError(13, "Permission denied", str(row.finished))

    monkeypatch.setattr(read_row, "write_finished", refuse)
    assert len(load(ablation.path).trials) == 13


def test_a_file_that_cannot_be_written_for_another_reason_is_said(ablation: Lab) -> None:
    for row in ablation.root.rows():
        row.finished.mkdir()
    with pytest.warns(UserWarning, match=r"finished\.jsonl: not written"):
        assert len(load(ablation.path).trials) == 13
