"""Every refusal is one sentence that names the file and what is wrong in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_files import FACTS

from mmkd.data import Split, check_dataset, read_info, read_split, write_dataset
from mmkd.errors import UserError

Splits = dict[str, Split]


def _set(splits: Splits, split: str, modality: str, where: object, value: float) -> Splits:
    splits[split].arrays[modality][where] = value  # type: ignore[index]
    return splits


def _replace(splits: Splits, split: str, **change: object) -> Splits:
    return {**splits, split: replace(splits[split], **change)}  # type: ignore[arg-type]


def _array(splits: Splits, split: str, modality: str, change: Callable[[np.ndarray], np.ndarray]) -> Splits:
    splits[split].arrays[modality] = change(splits[split].arrays[modality])
    return splits


BAD_SPLITS: dict[str, tuple[Callable[[Splits], Splits], str]] = {
    "a split is missing": (lambda s: {"train": s["train"], "test": s["test"]}, "train, valid, test, not train, test"),
    "train is missing": (lambda s: {"test": s["test"]}, "must be train, valid, test, not test"),
    "a split is empty": (
        lambda s: _replace(
            s, "valid", arrays={m: a[:0] for m, a in s["valid"].arrays.items()}, labels=np.zeros(0, int)
        ),
        "'valid' is empty",
    ),
    "a modality is missing": (lambda s: _replace(s, "test", arrays={"video": s["test"].arrays["video"]}), "'test' has"),
    "NaN": (lambda s: _set(s, "test", "audio", (5, 8, 1), np.nan), "'test', modality 'audio', sample 'test-5'.* NaN"),
    "infinity": (lambda s: _set(s, "train", "video", (2, 5, 0), -np.inf), "'video', sample 'train-2'.* infinity"),
    "complex": (
        lambda s: _array(s, "valid", "audio", lambda a: a.astype(complex)),
        "complex128, not .*; convert it with",
    ),
    "a float64 too large": (
        lambda s: _array(s, "valid", "audio", lambda a: a.astype(float) * 1e39),
        r"'valid', modality 'audio', sample 'valid-0': -?\d.*e\+\d+ does not fit float32",
    ),
    "rank 2": (lambda s: _array(s, "valid", "audio", lambda a: a[:, :, 0]), r"shape is \(12, 9\), not \(12, steps"),
    "no steps": (lambda s: _array(s, "valid", "audio", lambda a: a[:, :0]), r"shape is \(12, 0, 2\)"),
    "too few rows": (lambda s: _array(s, "valid", "audio", lambda a: a[:5]), r"shape is \(5, 9, 2\), not \(12"),
    "other steps": (lambda s: _array(s, "test", "audio", lambda a: a[:, 1:]), r"\(8, 2\) steps .* train has \(9, 2\)"),
    "label too large": (lambda s: _replace(s, "test", labels=np.full(12, 3)), r"'test-0': label 3 is not in 0..2"),
    "float labels": (lambda s: _replace(s, "test", labels=np.zeros(12)), "labels are float64"),
    "ids too few": (lambda s: _replace(s, "test", ids=["a"]), "12 labels, but 1 ids"),
    "id twice": (
        lambda s: _replace(_replace(s, "train", ids=list("abcdefghijkl")), "test", ids=list("lmnopqrstuvw")),
        "sample id 'l' occurs in 'train' and in 'test'",
    ),
    "id with a newline": (lambda s: _replace(s, "test", ids=[f"a\n{i}" for i in range(12)]), "not a printable text"),
    "groups of some splits": (lambda s: _replace(s, "test", groups=["a"] * 12), "'test' has groups, unlike train"),
    "too few groups": (
        lambda s: {n: replace(x, groups=["a"] * (12 - (n == "valid"))) for n, x in s.items()},
        "'valid' has 12 labels, but 11 groups",
    ),
    "group with a newline": (
        lambda s: {n: replace(x, groups=["a\n"] * 12) for n, x in s.items()},
        r"'train', sample 'train-0': group 'a\\n' is not a printable text",
    ),
    "length 0": (lambda s: _replace(s, "test", lengths={"audio": np.zeros(12, int)}), r"length 0 is not in 1..9"),
    "padding is not zero": (
        lambda s: _replace(s, "test", lengths={"audio": np.full(12, 4)}),
        "'test', modality 'audio', sample 'test-0': has values other than 0 before its last 4 steps",
    ),
    "scores without a range": (lambda s: _replace(s, "test", scores=np.zeros(12)), "has scores, but label_kind"),
    "a strange name": (
        lambda s: {n: replace(x, arrays={"a/b": x.arrays["audio"]}) for n, x in s.items()},
        "modality name 'a/b'",
    ),
}


@pytest.mark.parametrize("case", BAD_SPLITS)
def test_bad_splits_are_refused_and_nothing_is_written(case: str, tmp_path: Path, splits: Splits) -> None:
    spoil, message = BAD_SPLITS[case]
    with pytest.raises(UserError, match=message) as refusal:
        write_dataset(tmp_path / "out.h5", spoil(splits), **FACTS)
    assert str(refusal.value).startswith(f"{tmp_path / 'out.h5'} not written: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"classes": ["one"]}, "two or more names"),
        ({"classes": ["a", "a", "b"]}, "all different"),
        ({"label_kind": "rank"}, "unknown label_kind 'rank'"),
        ({"label_kind": "score"}, "give score_range"),
        ({"score_range": (0, 1)}, "leave score_range out"),
        ({"label_kind": "score", "score_range": (1, 1)}, "a higher one of the last"),
        ({"label_kind": "score", "score_range": (0, 2)}, "has no scores"),
        ({"vectors": {"smell": 3}}, "unknown modality of vectors 'smell'"),
        ({"vectors": {"video": 3}}, "4 features are not vectors of 3"),
    ],
)
def test_bad_facts_are_refused(facts: dict[str, object], message: str, tmp_path: Path, splits: Splits) -> None:
    with pytest.raises(UserError, match=message):
        write_dataset(tmp_path / "out.h5", splits, **{**FACTS, **facts})


def test_a_score_far_from_its_class_is_refused(tmp_path: Path, splits: Splits) -> None:
    scored = {n: replace(s, scores=s.labels + 0.4) for n, s in splits.items()}
    scored["valid"].labels[3] = 0
    scored["valid"].scores[3] = 1.5  # type: ignore[index]
    with pytest.raises(UserError, match=r"sample 'valid-3': score 1\.5 is nearer to another class"):
        write_dataset(tmp_path / "out.h5", scored, **FACTS, label_kind="score", score_range=(0, 2))


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path, splits: Splits) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        write_dataset(tmp_path / "nowhere" / "out.h5", splits, **FACTS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.h5: no such data file"):
        read_info(tmp_path / "gone.h5")


def test_a_file_that_is_not_hdf5_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not a data file")
    with pytest.raises(UserError, match=r"text\.h5: not an HDF5 file"):
        read_info(tmp_path / "text.h5")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_named(data_file: Path, share: float) -> None:
    content = data_file.read_bytes()
    data_file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"data\.h5: .*(truncated|damaged)"):
        check_dataset(data_file)


def test_hdf5_of_another_layout_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(UserError, match=r"other\.h5: an HDF5 file, but not of mmkd's layout"):
        read_info(tmp_path / "other.h5")


def test_a_newer_layout_asks_for_a_newer_mmkd(data_file: Path) -> None:
    with h5py.File(data_file, "a") as file:
        file.attrs["mmkd_layout"] = 99
    with pytest.raises(UserError, match=r"data\.h5: layout version 99, this mmkd reads version 2; update mmkd"):
        read_info(data_file)


@pytest.mark.parametrize("part", ["valid", "train/labels", "train/arrays/video", "test/ids"])
def test_a_file_with_a_part_missing_is_damaged(data_file: Path, part: str) -> None:
    with h5py.File(data_file, "a") as file:
        del file[part]
    with pytest.raises(UserError, match=r"data\.h5: damaged or incomplete"):
        read_info(data_file)


@pytest.mark.parametrize("attribute", ["classes", "fingerprint"])
def test_a_file_with_an_attribute_missing_is_damaged(data_file: Path, attribute: str) -> None:
    with h5py.File(data_file, "a") as file:
        del file.attrs[attribute]
    with pytest.raises(UserError, match=r"data\.h5: damaged or incomplete"):
        read_info(data_file)


def test_the_check_finds_a_value_that_was_changed_after_writing(data_file: Path) -> None:
    with h5py.File(data_file, "a") as file:
        file["test/arrays/audio"][0, 0, 0] += 1
    with pytest.raises(UserError, match=r"data\.h5: content has the fingerprint .* changed since"):
        check_dataset(data_file)


def test_a_split_that_became_nan_is_not_read(data_file: Path) -> None:
    with h5py.File(data_file, "a") as file:
        file["test/arrays/audio"][7, 0, 0] = np.nan
    with pytest.raises(UserError, match="split 'test' has values of audio that are not finite"):
        read_split(data_file, "test")
    read_split(data_file, "test", ["video"])


def test_the_check_names_the_sample_that_became_nan(data_file: Path) -> None:
    with h5py.File(data_file, "a") as file:
        file["test/arrays/audio"][7, 0, 0] = np.nan
    with pytest.raises(UserError, match=r"data\.h5: split 'test', modality 'audio', sample 'test-7': holds NaN"):
        check_dataset(data_file)


def test_the_check_finds_statistics_that_are_not_those_of_train(data_file: Path) -> None:
    with h5py.File(data_file, "a") as file:
        file["train/arrays/audio"].attrs["mean"] = [0.0, 0.0]
    with pytest.raises(UserError, match=r"data\.h5: modality 'audio': mean or std are not those of train"):
        check_dataset(data_file)


def test_unknown_splits_and_modalities_are_answered_with_the_choices(data_file: Path) -> None:
    with pytest.raises(UserError, match=r"unknown split 'dev' \(choices: test, train, valid\)"):
        read_split(data_file, "dev")
    with pytest.raises(UserError, match=r"unknown modality 'vidoe'; did you mean video\?"):
        read_split(data_file, "train", ["vidoe"])
