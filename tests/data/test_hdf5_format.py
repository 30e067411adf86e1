from __future__ import annotations

import fcntl
import inspect
import os
import textwrap
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_files import FACTS, make_splits

from mmkd.data import SPLITS, Split, check_dataset, read_info, read_split, write_dataset
from mmkd.data.staging import STAGE, stage


def test_what_is_written_is_read_back(data_file: Path, splits: dict[str, Split]) -> None:
    for name in SPLITS:
        read = read_split(data_file, name, standardise=False)
        assert list(read.arrays) == ["video", "audio"]
        for modality, array in read.arrays.items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, splits[name].arrays[modality])
        np.testing.assert_array_equal(read.labels, splits[name].labels)
        assert read.ids == [f"{name}-{i}" for i in range(12)]
        assert read.scores is None


def test_the_info_tells_what_is_in_the_file(data_file: Path, splits: dict[str, Split]) -> None:
    info = read_info(data_file)
    assert info.modalities == ("video", "audio")
    assert (info.steps, info.features) == ({"video": 6, "audio": 9}, {"video": 4, "audio": 2})
    assert info.classes == ("no", "yes", "maybe")
    assert info.sizes == {"train": 12, "valid": 12, "test": 12}
    assert info.class_counts["train"] == tuple(np.bincount(splits["train"].labels, minlength=3))
    assert (info.source, info.license, info.notes) == ("synthetic (tests)", "CC0-1.0", "made by a test")
    assert info.vectors == {"video": 2}
    assert info.class_scores is None
    assert check_dataset(data_file) == info


def test_lengths_left_out_are_found_from_the_zeros_in_front(data_file: Path, splits: dict[str, Split]) -> None:
    video = splits["train"].arrays["video"]
    expected = [6 - int(np.argmax((sample != 0).any(axis=1))) for sample in video]
    assert read_split(data_file, "train").lengths["video"].tolist() == expected


def test_modalities_are_read_in_the_order_asked_for(data_file: Path) -> None:
    assert list(read_split(data_file, "test", ["audio"]).arrays) == ["audio"]
    assert list(read_split(data_file, "test", ["audio", "video"]).arrays) == ["audio", "video"]


def test_standardised_train_has_mean_0_and_deviation_1_over_its_real_steps(
    tmp_path: Path, splits: dict[str, Split]
) -> None:
    write_dataset(tmp_path / "plain.h5", splits, **FACTS)
    train = read_split(tmp_path / "plain.h5", "train")
    real = np.arange(6) >= 6 - train.lengths["video"][:, None]
    values = train.arrays["video"][real]
    np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(values.std(axis=0), 1.0, atol=1e-6)


def test_features_of_spatial_vectors_share_a_deviation(data_file: Path, splits: dict[str, Split]) -> None:
    raw, train = splits["train"].arrays["video"], read_split(data_file, "train")
    real = np.arange(6) >= 6 - train.lengths["video"][:, None]
    values = train.arrays["video"][real]
    np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose((values**2).mean(), 1.0, atol=1e-6)
    shared = np.sqrt(raw[real].var(axis=0).mean())
    np.testing.assert_allclose(values, (raw[real] - raw[real].mean(axis=0)) / shared, atol=1e-5)


def test_padding_stays_exactly_zero_when_standardised(data_file: Path) -> None:
    for name in SPLITS:
        split = read_split(data_file, name)
        padding = np.arange(6) < 6 - split.lengths["video"][:, None]
        assert padding.any()
        assert not split.arrays["video"][padding].any()


def test_statistics_come_from_train_alone(tmp_path: Path, data_file: Path, splits: dict[str, Split]) -> None:
    test = splits["test"]
    splits["test"] = replace(test, arrays={m: a * np.float16(100) for m, a in test.arrays.items()})
    write_dataset(tmp_path / "other.h5", splits, **FACTS, vectors={"video": 2})
    for modality in ("video", "audio"):
        np.testing.assert_array_equal(
            read_split(tmp_path / "other.h5", "train").arrays[modality], read_split(data_file, "train").arrays[modality]
        )


def test_a_constant_feature_becomes_zero_and_not_noise(tmp_path: Path) -> None:
    splits = make_splits()
    for split in splits.values():
        split.arrays["audio"] = np.full((12, 9, 2), 0.1, np.float32)
    write_dataset(tmp_path / "constant.h5", splits, **FACTS)
    assert np.abs(read_split(tmp_path / "constant.h5", "train").arrays["audio"]).max() < 1e-6


def test_chunks_do_not_change_anything(tmp_path: Path, data_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmkd.data.dataset.CHUNK_BYTES", 200)  # two samples a chunk
    mark = write_dataset(tmp_path / "chunked.h5", make_splits(), **FACTS, vectors={"video": 2})
    assert mark == read_info(data_file).fingerprint
    check_dataset(data_file)
    for modality, array in read_split(data_file, "train").arrays.items():
        np.testing.assert_allclose(array, read_split(tmp_path / "chunked.h5", "train").arrays[modality], atol=1e-6)


def test_the_fingerprint_depends_on_content_alone(tmp_path: Path) -> None:
    first = write_dataset(tmp_path / "a.h5", make_splits(), **FACTS)
    elsewhere = tmp_path / "folder"
    elsewhere.mkdir()
    facts = {**FACTS, "source": "somewhere else", "license": "none"}
    swapped = {name: make_splits()[name] for name in reversed(SPLITS)}
    assert write_dataset(elsewhere / "b.h5", swapped, **facts, notes="made later") == first


def _with(splits: dict[str, Split], **change: object) -> dict[str, Split]:
    return {**splits, "test": replace(splits["test"], **change)}


def test_the_fingerprint_changes_with_any_content(tmp_path: Path, splits: dict[str, Split]) -> None:
    test = splits["test"]
    value = {m: a.copy() for m, a in test.arrays.items()}
    value["audio"][-1, -1, -1] += np.float16(0.25)
    lengths = {"video": np.full(12, 6), "audio": np.full(12, 9)}
    scored = [0.0, 1.0, 2.0]
    variants = [
        write_dataset(tmp_path / "x.h5", changed, **{**FACTS, **facts})
        for changed, facts in [
            (splits, {}),
            (_with(splits, arrays=value), {}),
            (_with(splits, arrays={m: a.astype("float32") for m, a in test.arrays.items()}), {}),
            (_with(splits, labels=(test.labels + 1) % 3), {}),
            (_with(splits, lengths=lengths), {}),
            (_with(splits, ids=[f"x{i}" for i in range(12)]), {}),
            (splits, {"classes": ["a", "b", "c"]}),
            (splits, {"vectors": {"audio": 2}}),
            ({n: replace(s, arrays=dict(reversed(s.arrays.items()))) for n, s in splits.items()}, {}),
            (
                {n: replace(s, scores=np.array(scored)[s.labels]) for n, s in splits.items()},
                {"label_kind": "score", "score_range": (0, 2)},
            ),
        ]
    ]
    assert len(set(variants)) == len(variants)


def _grouped(splits: dict[str, Split]) -> dict[str, Split]:
    return {name: replace(split, groups=[f"Ä {n // 4}" for n in range(12)]) for name, split in splits.items()}


def test_groups_are_kept_and_are_no_part_of_the_fingerprint(tmp_path: Path, splits: dict[str, Split]) -> None:
    plain = write_dataset(tmp_path / "plain.h5", splits, **FACTS)
    assert write_dataset(tmp_path / "groups.h5", _grouped(splits), **FACTS) == plain
    assert read_info(tmp_path / "plain.h5").group_counts == {}
    assert check_dataset(tmp_path / "groups.h5").group_counts == {
        name: {"Ä 0": 4, "Ä 1": 4, "Ä 2": 4} for name in SPLITS
    }
    assert read_split(tmp_path / "groups.h5", "test").groups == _grouped(splits)["test"].groups
    assert read_split(tmp_path / "plain.h5", "test").groups == []


def test_the_copy_on_a_nodes_disk_has_the_groups_of_the_file_and_is_replaced_when_they_are_added(
    tmp_path: Path, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node").mkdir()
    monkeypatch.setenv(STAGE, "1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    for stored in (splits, _grouped(splits)):
        write_dataset(tmp_path / "data.h5", stored, **FACTS)
        info = read_info(tmp_path / "data.h5")
        staged = stage(info)
        assert staged.path.parent == tmp_path / "node"
        assert staged.group_counts == info.group_counts


def test_scores_are_kept_with_what_their_classes_stand_for(tmp_path: Path, splits: dict[str, Split]) -> None:
    scored = {n: replace(s, scores=s.labels - 1.0 + 0.25) for n, s in splits.items()}
    write_dataset(tmp_path / "scores.h5", scored, **FACTS, label_kind="score", score_range=(-1, 1))
    info = check_dataset(tmp_path / "scores.h5")
    assert info.label_kind == "score"
    assert info.class_scores is not None
    assert info.class_scores.tolist() == [-1.0, 0.0, 1.0]
    scores = read_split(tmp_path / "scores.h5", "test").scores
    assert scores is not None
    np.testing.assert_array_equal(scores, scored["test"].scores)


def test_the_ten_line_example_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documentation = inspect.getdoc(write_dataset) or ""
    example = documentation.split("in ten lines:\n")[1].split("Args:")[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    exec(textwrap.dedent(example), {})
    assert check_dataset("mine.h5").sizes == {"train": 60, "valid": 20, "test": 20}


def test_many_features_fit_into_the_file(tmp_path: Path) -> None:
    wide = {n: Split(arrays={"a": np.ones((1, 1, 20_000), "float32")}, labels=np.array([0])) for n in SPLITS}
    write_dataset(tmp_path / "wide.h5", wide, classes=["x" * 70_000, "y"], source="synthetic", license="none")
    assert check_dataset(tmp_path / "wide.h5").features == {"a": 20_000}


def test_files_are_readable_while_another_process_holds_a_lock(data_file: Path) -> None:
    with data_file.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # what HDF5 locks with; a second open file is refused it
        with pytest.raises(BlockingIOError):
            h5py.File(data_file, "r", locking=True)
        assert len(read_split(data_file, "train")) == 12


def test_a_failed_write_leaves_the_old_file_and_nothing_else(data_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = data_file.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmkd.data.hdf5_write._write_split", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_dataset(data_file, make_splits(seed=1), **FACTS)
    assert data_file.read_bytes() == before
    assert os.listdir(data_file.parent) == ["data.h5"]
