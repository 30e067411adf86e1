"""What is in a trial's files."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmkd.attempts import current_attempt, read_attempts, record_run, record_submission
from mmkd.checksum import CHECKSUM_BYTES, checksum_line
from mmkd.errors import UserError
from mmkd.failures import Failure
from mmkd.files import write_json, write_text
from mmkd.metrics_log import append_metrics, cut_metrics, read_metrics
from mmkd.records import as_written
from mmkd.result_file import (
    RESULT_VERSION,
    Predictions,
    Result,
    ResultError,
    Status,
    check_result,
    read_result,
    read_summary,
    write_result,
)
from mmkd.rundir import TrialDir
from mmkd.stored_text import fixed
from mmkd.trial_state import State, trial_state


@pytest.fixture
def place(tmp_path: Path) -> TrialDir:
    return TrialDir(tmp_path)


def make_result(**changes: Any) -> Result:
    rng = np.random.default_rng(0)
    valid = Predictions(rng.normal(size=(5, 3)).astype("f4"), np.arange(5) % 3, [f"sample/{i} ä" for i in range(5)])
    test = Predictions(valid.logits + 1, valid.labels, valid.ids, scores=np.linspace(-1, 1, 5, dtype="f4"))
    facts: dict[str, Any] = {
        "status": Status.COMPLETE,
        "config": {"seed": 3, "network": {"kernels": {"text": 1}}, "branch": None, "name": "ä"},
        "reason": "",
        "best_epoch": 2,
        "epochs": 3,
        "seconds": 1.25,
        "parameters": 674_631,
        "device": "cpu",
        "weights_sha256": "ab" * 32,
        "metrics": {"valid": {"loss": 0.1 + 0.2, "accuracy": 1 / 3}, "test": {"loss": float("nan"), "recall_0": 0.0}},
        "curves": {"valid_loss": [0.3, 1e300, float("inf")], "learning_rate": [1e-3, 5e-4, 5e-4]},
        "predictions": {"valid": valid, "test": test},
        "standardisation": {"video": (rng.normal(size=4), rng.random(4))},
    }
    return Result(**{**facts, **changes})


def plain(result: Result) -> dict[str, Any]:
    """For comparison: arrays as bytes with their types, NaN as text."""
    predictions = {
        split: (
            p.logits.dtype.str,
            p.logits.tolist(),
            p.labels.dtype.str,
            p.labels.tolist(),
            p.ids,
            None if p.scores is None else (p.scores.dtype.str, p.scores.tolist()),
        )
        for split, p in sorted(result.predictions.items())
    }
    pairs = {m: [side.tolist() for side in pair] for m, pair in result.standardisation.items()}
    facts = {**vars(result), "predictions": predictions, "standardisation": pairs}
    return {name: str(value) for name, value in facts.items() if name not in ("config", "metrics", "curves")} | {
        name: json.dumps(facts[name], sort_keys=True) for name in ("config", "metrics", "curves")
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"status": Status.PRUNED, "reason": "stopped by the controller"},
        {
            "status": Status.DIVERGED,
            "reason": "epoch 1: ä",
            "metrics": {},
            "curves": {},
            "predictions": {},
            "best_epoch": -1,
        },
    ],
    ids=["complete", "pruned", "diverged at once"],
)
def test_a_result_is_read_back_as_it_was_written(changes: dict[str, Any], place: TrialDir) -> None:
    written = make_result(**changes)
    write_result(place, written)
    read = read_result(place.result)
    assert plain(read) == plain(written)
    assert isinstance(read.status, Status)
    assert [type(getattr(read, name)) for name in ("best_epoch", "seconds", "reason")] == [int, float, str]


def test_predictions_may_be_left_unread(place: TrialDir) -> None:
    write_result(place, make_result())
    short = read_result(place.result, predictions=False)
    assert short.predictions == {}
    assert plain(short) | {"predictions": ""} == plain(make_result()) | {"predictions": ""}


def test_a_summary_says_what_the_result_says(place: TrialDir) -> None:
    result = make_result()
    write_result(place, result)
    summary = read_summary(place.result)
    assert (summary.status, summary.epochs, summary.seconds) == (result.status, result.epochs, result.seconds)
    whole = read_result(place.result).metrics
    assert repr(summary.metrics) == repr(whole), "nan too"


def test_a_failed_write_leaves_no_result(place: TrialDir) -> None:
    with pytest.raises(TypeError):
        write_result(place, make_result(config={"not": object()}))
    assert list(place.path.iterdir()) == []


def test_no_result_is_no_file(place: TrialDir) -> None:
    with pytest.raises(FileNotFoundError, match=r"result\.h5"):
        read_result(place.result)


def test_a_result_truncated_anywhere_is_refused_and_named(place: TrialDir) -> None:
    write_result(place, make_result())
    content = place.result.read_bytes()
    for length in [0, 1, 100, *range(512, len(content), len(content) // 20), len(content) - 1]:
        place.result.write_bytes(content[:length])
        with pytest.raises(ResultError) as refused:
            read_result(place.result)
        assert str(refused.value).startswith(f"{place.result}: ")


def test_a_result_with_a_single_bit_flipped_anywhere_is_refused_and_named(place: TrialDir) -> None:
    write_result(place, make_result())
    content, seeded = place.result.read_bytes(), random.Random(0)
    for where in [
        len(content) - 1,
        len(content) - CHECKSUM_BYTES,
        *(seeded.randrange(len(content)) for _ in range(200)),
    ]:
        flipped = bytearray(content)
        flipped[where] ^= 1 << seeded.randrange(8)
        place.result.write_bytes(flipped)
        for read in (read_result, check_result):
            with pytest.raises(ResultError, match=f"{place.result}: "):
                read(place.result)
    place.result.write_bytes(content)
    check_result(place.result)


def test_a_result_without_its_checksum_is_refused(place: TrialDir) -> None:
    write_result(place, make_result())
    place.result.write_bytes(place.result.read_bytes()[:-CHECKSUM_BYTES])
    for read in (read_result, check_result):
        with pytest.raises(ResultError, match="does not end in its checksum"):
            read(place.result)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (1, r"version 1 is older than this mmkd reads \(3\); remove the file and launch again"),
        (2, r"version 2 is older than this mmkd reads \(3\); remove the file and launch again"),
        (RESULT_VERSION + 1, r"version 4 is newer than this mmkd reads \(3\); update mmkd"),
    ],
)
@pytest.mark.parametrize("checksum", ["with a checksum", "without one, as version 1 was"])
def test_a_result_of_another_version_is_refused_with_both_versions_and_the_remedy(
    place: TrialDir, version: int, said: str, checksum: str
) -> None:
    write_result(place, make_result())
    with h5py.File(place.result, "a") as file:
        file.attrs["result_version"] = version
    if checksum == "with a checksum":
        place.result.write_bytes(place.result.read_bytes() + checksum_line(place.result.read_bytes()))
    for read in (read_result, read_summary):
        with pytest.raises(ResultError, match=f"{place.result}: result {said}"):
            read(place.result)


@pytest.mark.parametrize("damage", ["text", "other HDF5", "no status", "status", "config", "folder", "predictions"])
def test_a_foreign_or_damaged_result_is_refused(damage: str, place: TrialDir) -> None:
    write_result(place, make_result())
    if damage == "text":
        place.result.write_text("accuracy 0.9\n")
    elif damage == "folder":
        place.result.unlink()
        place.result.mkdir()
    else:
        with h5py.File(place.result, "w" if damage == "other HDF5" else "a") as file:
            if damage == "other HDF5":
                file["x"] = 1
            elif damage == "no status":
                del file.attrs["status"]
            elif damage == "status":
                file.attrs["status"] = fixed("wonderful")
            elif damage == "config":
                file.attrs["config"] = fixed("{")
            else:
                del file["predictions/valid/logits"]
    with pytest.raises(ResultError, match="not a readable result"):
        read_result(place.result)


# --- attempts and states


def test_the_attempt_that_may_write_is_the_one_in_its_file(place: TrialDir) -> None:
    assert current_attempt(place) == 0
    write_text(place.attempt, "12\n")
    assert current_attempt(place) == 12


def test_records_of_controller_and_job_are_merged_and_the_controllers_word_counts_more(place: TrialDir) -> None:
    record_submission(place, 2, backend="slurm", job="77")
    record_run(place, 2, host="node3", pid=5)
    record_run(place, 2, end="error", message="it broke")
    record_submission(place, 10, job="91")
    record_run(place, 1, end="complete")
    first, second, tenth = read_attempts(place)
    assert (first.number, first.end, first.message) == (1, "complete", "")
    assert as_written(second.submitted) == {"backend": "slurm", "job": "77"}
    assert as_written(second.ran) == {"host": "node3", "pid": 5, "end": "error", "message": "it broke"}
    assert (second.end, second.message) == ("error", "it broke")
    assert (tenth.number, tenth.end) == (10, None)
    record_submission(place, 2, end=str(Failure.OUT_OF_MEMORY), message="killed at 4 GB")
    assert (read_attempts(place)[1].end, read_attempts(place)[1].message) == ("out_of_memory", "killed at 4 GB")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("[1]", "valid dictionary"),
        ('{"gpus": "many"}', r"gpus: .*'many'"),
        ('{"submitted": NaN}', "submitted: .*finite"),
    ],
)
def test_an_invalid_record_of_an_attempt_is_named(place: TrialDir, record: str, said: str) -> None:
    record_submission(place, 1, backend="slurm", gpus=1)
    place.controller_record(1).write_text(record)
    with pytest.raises(UserError, match=rf"attempts/1\.json: .*{said}.*; remove it: a relaunch"):
        read_attempts(place)


def test_a_record_of_an_attempt_that_is_cut_counts_as_absent_and_is_replaced(place: TrialDir) -> None:
    record_submission(place, 1, backend="slurm", gpus=1)
    place.controller_record(1).write_text('{"backend": "sl')
    assert not read_attempts(place)[0].is_announced
    record_submission(place, 1, job="77")
    assert as_written(read_attempts(place)[0].submitted) == {"job": "77"}


def test_a_trial_goes_through_its_states(place: TrialDir) -> None:
    shutil.rmtree(place.path)
    assert trial_state(place) is State.SAMPLED
    place.path.mkdir()
    assert trial_state(place) is State.SAMPLED
    write_json(place.config, {})
    assert trial_state(place) is State.SAMPLED
    record_submission(place, 1, job="77")
    assert trial_state(place) is State.SAMPLED  # recorded, not yet announced
    write_text(place.attempt, "1\n")
    assert trial_state(place) is State.PENDING
    record_run(place, 1, host="node3")
    assert trial_state(place) is State.RUNNING
    record_run(place, 1, end="preempted")
    assert trial_state(place) is State.RETRY_DUE
    write_text(place.attempt, "2\n")
    assert trial_state(place) is State.PENDING  # attempt 1 does not count any more
    record_run(place, 2, host="node4")
    record_run(place, 1, host="node3")  # a superseded attempt's last word
    assert trial_state(place) is State.RUNNING
    record_submission(place, 2, end="node_fail")
    assert trial_state(place) is State.RETRY_DUE
    write_result(place, make_result(status=Status.DIVERGED))
    assert trial_state(place) is State.FINISHED


def test_a_result_is_the_end_whatever_the_records_say(place: TrialDir) -> None:
    write_json(place.config, {})
    write_text(place.attempt, "1\n")
    record_run(place, 1, end="error")
    write_result(place, make_result())
    assert trial_state(place) is State.FINISHED


# --- the metrics file


def test_metrics_lines_are_read_back(place: TrialDir) -> None:
    assert read_metrics(place) == []
    lines = [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2, "loss": 1e-300, "note": "ä\u2028"}]
    for line in lines:
        append_metrics(place, line)
    assert read_metrics(place) == lines


@pytest.mark.parametrize("torn", ['{"epoch": 3, "lo', "{", '{"epoch": 3}garbage', "\x00\x00\x00", "17", "\ud83d"])
def test_a_torn_metrics_line_ends_the_list(torn: str, place: TrialDir) -> None:
    for epoch in (1, 2):
        append_metrics(place, {"epoch": epoch})
    with place.metrics.open("ab") as file:
        file.write(torn.encode("utf-8", "surrogatepass"))
    assert read_metrics(place) == [{"epoch": 1}, {"epoch": 2}]


@pytest.mark.parametrize("torn", ["", '{"epoch": 4, "lo', '{"epoch": 4}'])
def test_cutting_leaves_whole_lines_to_append_to(torn: str, place: TrialDir) -> None:
    for epoch in (1, 2, 3):
        append_metrics(place, {"epoch": epoch})
    with place.metrics.open("a") as file:
        file.write(torn)
    cut_metrics(place, [{"epoch": 1}, {"epoch": 2}])
    append_metrics(place, {"epoch": 3, "again": True})
    assert place.metrics.read_text() == '{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3, "again": true}\n'
    cut_metrics(place, [])
    assert read_metrics(place) == []


def test_cutting_what_is_not_there_leaves_what_the_checkpoint_knows(place: TrialDir) -> None:
    cut_metrics(place, [])
    assert place.metrics.read_text() == ""
    append_metrics(place, {"epoch": 1, "time": 5.0})
    cut_metrics(place, [{"epoch": 1}, {"epoch": 2}])
    assert read_metrics(place) == [{"epoch": 1, "time": 5.0}, {"epoch": 2}]
