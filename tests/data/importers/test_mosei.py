from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmkd.data import check_dataset, read_info, read_split
from mmkd.data.importers.mosei import import_mosei
from mmkd.errors import UserError

SIZES = {"train": 7, "valid": 3, "test": 5}
SCORES = np.array([-3.0, -2.5, -0.5, 0.5, 1.5, 2.6, 3.0])


def _mult(**change: Any) -> dict[str, Any]:
    """Data in the layout of mosei_senti_data_noalign.pkl, with short sequences. `change` replaces parts of train."""
    rng = np.random.default_rng(0)
    data: dict[str, Any] = {}
    for name, n in SIZES.items():
        vision = rng.normal(size=(n, 12, 35))
        vision[:, :4] = 0.0
        data[name] = {
            "vision": vision,
            "audio": rng.normal(size=(n, 10, 74)),
            "text": rng.normal(size=(n, 5, 300)).astype("float32"),
            "labels": SCORES[:n].reshape(n, 1, 1),
            "id": np.array([[f"vid{name}{i}", f"{i}.5", f"{i + 1}.25"] for i in range(n)]),
        }
    data["train"].update(change)
    return data


def _import(tmp_path: Path, data: Any, protocol: int = 4) -> Path:
    (tmp_path / "mosei.pkl").write_bytes(pickle.dumps(data, protocol=protocol))
    import_mosei(tmp_path / "mosei.pkl", tmp_path / "mosei.h5")
    return tmp_path / "mosei.h5"


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_pickle_of_mult_becomes_a_data_file(tmp_path: Path, protocol: int) -> None:
    data = _mult()
    path = _import(tmp_path, data, protocol)
    info = check_dataset(path)
    assert info.modalities == ("video", "audio", "language")
    assert info.features == {"video": 35, "audio": 74, "language": 300}
    assert info.sizes == SIZES
    assert info.classes == ("-3", "-2", "-1", "0", "+1", "+2", "+3")
    assert (info.label_kind, info.score_range) == ("score", (-3.0, 3.0))
    assert "MulT's pickle" in info.source
    assert "CMU-MOSEI" in info.source
    for name in SIZES:
        read = read_split(path, name, standardise=False)
        for modality, key in {"video": "vision", "audio": "audio", "language": "text"}.items():
            np.testing.assert_array_equal(read.arrays[modality], data[name][key].astype("float32"))
        assert (read.lengths["video"] == 8).all()


def test_the_class_is_the_score_rounded_half_to_even(tmp_path: Path) -> None:
    train = read_split(_import(tmp_path, _mult()), "train")
    assert train.labels.tolist() == [0, 1, 3, 3, 5, 6, 6]
    assert train.scores is not None
    np.testing.assert_allclose(train.scores, SCORES)


def test_scores_beyond_the_range_are_clipped_for_the_class(tmp_path: Path) -> None:
    train = read_split(_import(tmp_path, _mult(labels=np.full((7, 1, 1), 3.7))), "train")
    assert train.labels.tolist() == [6] * 7


def test_minus_infinity_in_audio_is_zero(tmp_path: Path) -> None:
    audio = np.ones((7, 10, 74))
    audio[2, 3, 4] = -np.inf
    audio[5] = -np.inf
    train = read_split(_import(tmp_path, _mult(audio=audio)), "train", standardise=False)
    assert train.arrays["audio"][2, 3, 4] == 0.0
    assert not train.arrays["audio"][5].any()
    assert train.lengths["audio"].tolist() == [10, 10, 10, 10, 10, 1, 10]


@pytest.mark.parametrize("key", ["vision", "audio", "text"])
def test_nan_is_refused_with_the_id_of_the_sample(tmp_path: Path, key: str) -> None:
    data = _mult()
    data["train"][key][3, -1, 0] = np.nan
    with pytest.raises(UserError, match=r"sample 'vidtrain3_3\.5_4\.25': holds NaN"):
        _import(tmp_path, data)
    assert not (tmp_path / "mosei.h5").exists()


def test_a_label_that_is_nan_is_refused_with_the_id(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'train', sample vidtrain0_0\.5_1\.25: label is NaN"):
        _import(tmp_path, _mult(labels=np.full((7, 1, 1), np.nan)))


NAMES = [f"v{i}" for i in range(7)]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (None, [f"train-{i}" for i in range(7)]),
        (np.array(NAMES), NAMES),
        (np.array(NAMES, dtype="S4"), NAMES),
        (np.array([[name] for name in NAMES], dtype=object), NAMES),
        ([name.encode() for name in NAMES], NAMES),
        (np.array([[n.encode(), b"0.1", b"2"] for n in NAMES], dtype=object), [f"{n}_0.1_2" for n in NAMES]),
        (np.array([[[n], [1.5], [2.5]] for n in NAMES], dtype=object), [f"{n}_1.5_2.5" for n in NAMES]),
        (np.array(["v"] * 5 + ["w"] * 2), ["v", "v#2", "v#3", "v#4", "v#5", "w", "w#2"]),
    ],
)
def test_ids_of_every_form_become_unique_texts(tmp_path: Path, ids: Any, expected: list[str]) -> None:
    assert read_split(_import(tmp_path, _mult(id=ids)), "train", ["language"]).ids == expected


VIDEOS = ["a", "a", "a", "b", "b", "c", "c"]


@pytest.mark.parametrize(
    "ids",
    [
        np.array([[video, f"{n}.5", f"{n}.75"] for n, video in enumerate(VIDEOS)]),
        np.array([f"{video}$_${n}" for n, video in enumerate(VIDEOS)]),
        np.array([f"{video}[{n}]".encode() for n, video in enumerate(VIDEOS)]),
    ],
)
def test_the_video_in_an_id_is_the_group(tmp_path: Path, ids: Any) -> None:
    path = _import(tmp_path, _mult(id=ids))
    assert read_split(path, "train", []).groups == VIDEOS
    assert read_split(path, "valid", []).groups == [f"vidvalid{i}" for i in range(3)]


@pytest.mark.parametrize("ids", [None, np.array(NAMES)])
def test_a_file_has_no_groups_if_one_split_does_not_tell_its_videos(tmp_path: Path, ids: Any) -> None:
    assert read_info(_import(tmp_path, _mult(id=ids))).group_counts == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision": None}, "split 'train': 'vision' is missing"),
        ({"audio": np.array(["a"] * 7)}, "'audio' is missing or no array of numbers"),
        ({"labels": np.zeros((7, 6))}, r"'labels' have the shape \(7, 6\), not \(N, 1, 1\)"),
        ({"id": ["a", "b"]}, "one id for each of 7 labels"),
        ({"text": np.zeros((6, 5, 300))}, r"shape is \(6, 5, 300\), not \(7"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _import(tmp_path, _mult(**change))


def test_a_pickle_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds a list, not a dict"):
        _import(tmp_path, [1, 2])
    with pytest.raises(UserError, match="split 'valid' is missing"):
        _import(tmp_path, {"train": _mult()["train"]})


def test_the_file_notes_how_it_was_made(tmp_path: Path) -> None:
    assert "-inf in audio set to 0" in read_info(_import(tmp_path, _mult())).notes
