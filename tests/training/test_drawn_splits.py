"""Trials on splits that are drawn by group: what they learn from, what they store, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mmkd import forked_trials
from mmkd.config import DrawnSplit, SplitSettings, StudentConfig, identity
from mmkd.data import (
    DatasetInfo,
    Split,
    choose_split,
    divide,
    keep_split,
    read_info,
    read_split,
    reading,
    write_dataset,
)
from mmkd.data.reading import read_statistics
from mmkd.errors import UserError
from mmkd.metrics import classification_metrics
from mmkd.result_file import read_result
from mmkd.rundir import TrialDir
from mmkd.training.trained_network import load_network
from mmkd.training.trainer import Preempted

if TYPE_CHECKING:
    from conftest import Steps

    from tests.conftest import Lab

    Numbers = Callable[[TrialDir], dict[str, Any]]


def choose(lab: Lab, replicate: int = 1) -> DrawnSplit:
    choice = choose_split(read_info(lab.data), SplitSettings(scheme="group-folds", seed=1), replicate)
    assert choice is not None
    return choice


def describe(lab: Lab, choice: DrawnSplit) -> DatasetInfo:
    return divide(read_info(lab.data), choice)


def taught(lab: Lab, choice: DrawnSplit, **changes: Any) -> StudentConfig:
    """A student of CRD on a drawn split, whose teacher has been trained on it."""
    teacher = lab.teacher(split=choice)
    lab.run(teacher)
    return lab.student("crd", level="final", split=choice, teacher=teacher, evaluate_test=True, **changes)


def test_a_student_and_its_teacher_on_a_drawn_split_resume_bit_for_bit(
    lab: Lab, steps: Steps, numbers_of: Numbers
) -> None:
    config = taught(lab, choose(lab))
    expected = numbers_of(lab.run(config, 1))
    steps.end_after = {steps.made + 2, steps.made + 7}
    place = lab.place(config, 0)
    for _ in range(2):
        with pytest.raises(Preempted):
            lab.run(config, 0, asked_to_end=steps.asked_to_end)
        assert place.checkpoint.exists()
    lab.run(config, 0)
    assert numbers_of(place) == expected


def test_a_trial_learns_from_and_is_tested_on_the_parts_of_its_split(lab: Lab) -> None:
    choice = choose(lab)
    info = describe(lab, choice)
    (tested,) = info.group_counts["test"]
    assert tested.startswith("train")  # in the file's own parts it is learnt from
    result = read_result(lab.run(taught(lab, choice)).result)
    assert result.config["split"] == choice.model_dump()
    for part in ("valid", "test"):
        samples, stored = read_split(info, part), result.predictions[part]
        assert (stored.ids, stored.groups) == (samples.ids, samples.groups)
        assert set(stored.groups) == set(info.group_counts[part])
        np.testing.assert_array_equal(stored.labels, samples.labels)
        commonest = int(np.argmax(info.class_counts["train"]))
        assert result.metrics[part] == classification_metrics(stored.logits, stored.labels, commonest)
    mean, std = read_statistics(info)["video"]
    np.testing.assert_array_equal(result.standardisation["video"], (mean, std))
    assert not np.allclose(mean, read_statistics(lab.data)["video"][0])


def test_groups_are_stored_for_the_files_own_parts_too(lab: Lab) -> None:
    result = read_result(lab.run(lab.student(evaluate_test=True)).result)
    assert "split" not in result.config
    assert result.predictions["test"].groups == read_split(lab.data, "test").groups


def test_teachers_of_other_splits_are_other_teachers(lab: Lab) -> None:
    configs = [lab.teacher(), *(lab.teacher(split=choose(lab, replicate)) for replicate in range(8))]
    assert len({identity(config) for config in configs}) == 9
    with pytest.raises(UserError, match="no teacher"):
        lab.run(lab.student("crd", level="final", split=choose(lab), teacher=lab.teacher(split=choose(lab))))


def test_a_trained_network_is_loaded_with_the_parts_of_its_split(lab: Lab) -> None:
    choice = choose(lab)
    trained = load_network(lab.run(lab.student(split=choice)).path)
    assert trained.info == describe(lab, choice)


def test_a_trial_whose_samples_changed_groups_is_refused(lab: Lab) -> None:
    config = lab.student(split=choose(lab))
    splits: dict[str, Split] = {}
    for name in ("train", "valid", "test"):
        split = read_split(lab.data, name, standardise=False)
        splits[name] = replace(split, groups=["another", *split.groups[1:]])
    info = read_info(lab.data)
    path = lab.root.path / "moved.h5"
    facts: dict[str, Any] = {"classes": info.classes, "source": info.source, "license": info.license}
    assert write_dataset(path, splits, vectors=info.vectors, **facts) == lab.fingerprint
    moved = config.model_copy(update={"data": config.data.model_copy(update={"path": str(path)})})
    with pytest.raises(UserError, match=r"moved\.h5: split 'group-folds' of replicate 1 .*groups of the samples have"):
        lab.run(moved)


def test_a_worker_keeps_the_file_once_for_all_drawn_splits(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for cache in ("_kept", "_raw", "_statistics"):
        monkeypatch.setattr(reading, cache, {})
    infos = [describe(lab, choose(lab, replicate)) for replicate in (0, 1)]
    fresh = [read_split(info, part) for info in infos for part in ("train", "valid", "test")]
    for cache in (reading._raw, reading._statistics):
        cache.clear()
    for info in infos:
        keep_split(info, "train", ["video", "audio", "text"])
        keep_split(info, "valid", ["video"])
        assert set(reading._raw) == {
            (lab.fingerprint, part, m) for part in ("train", "valid", "test") for m in info.modalities
        }
    monkeypatch.setattr(reading, "_real_steps", None)  # statistics are kept, too
    kept = [read_split(info, part) for info in infos for part in ("train", "valid", "test")]
    for one, other in zip(fresh, kept, strict=True):
        assert (one.ids, one.groups) == (other.ids, other.groups)
        assert {m: a.tobytes() for m, a in one.arrays.items()} == {m: a.tobytes() for m, a in other.arrays.items()}
    assert reading._kept == {}


def test_a_worker_reads_what_a_trial_on_a_drawn_split_needs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for cache in ("_kept", "_raw", "_statistics"):
        monkeypatch.setattr(reading, cache, {})
    forked_trials._keep_data.cache_clear()
    opened: list[str] = []
    monkeypatch.setattr(forked_trials, "read_info", lambda path: opened.append(path) or read_info(path))
    choice = choose(lab)
    for seed in (0, 1):
        teacher = lab.teacher(split=choice)
        student = lab.student("crd", level="final", split=choice, teacher=teacher, seed=seed)
        forked_trials._share_data(lab.place(student, seed))
    assert len(opened) == 1
    assert set(reading._statistics) == {(lab.fingerprint, choice.digest, m) for m in ("video", "audio", "text")}
    assert len(reading._raw) == 9
