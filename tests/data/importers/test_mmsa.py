"""MMSA's pickles: padding behind, lengths that count from the front."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmkd.data import check_dataset, read_info, read_split
from mmkd.data.importers.importing import Options
from mmkd.data.importers.mmsa import import_mmsa
from mmkd.errors import UserError

SIZES = {"train": 12, "valid": 8, "test": 9}
SCORES = np.array([-3, -2.4, -1, -0.2, 0, 0.6, 1, 2.4, 3, 0.2, -1.8, 1.4])
KEYS = {"video": "vision", "audio": "audio", "language": "text"}


def _mmsa(
    aligned: bool = False, scale: float = 1.0, side: str = "behind", widths: tuple[int, ...] = (20, 5, 768)
) -> Any:
    """A file like unaligned_50.pkl, or aligned_50.pkl; scores are of MOSI times `scale`."""
    rng = np.random.default_rng(0)
    data = {}
    for name, n in SIZES.items():
        steps = {"vision": 6, "audio": 9, "text": 5} if not aligned else dict.fromkeys(("vision", "audio", "text"), 6)
        part: dict[str, Any] = {
            "raw_text": np.array([f"words {i}" for i in range(n)]),
            "text_bert": rng.integers(0, 9, (n, 3, 5)).astype("f4"),
            "annotations": ["Positive"] * n,
            "classification_labels": rng.integers(0, 3, n).astype("f4"),
            "regression_labels": (scale * SCORES[:n]).astype("f4"),
            "id": np.array([f"{name}{i // 3}$_${i % 3}" for i in range(n)], dtype=object),
        }
        shared = rng.integers(2, 7, n)
        for (key, count), width in zip(steps.items(), widths, strict=True):
            lengths = shared if aligned else rng.integers(2, count + 1, n)
            part[key] = rng.normal(size=(n, count, width)).astype("f4")
            part[key][:, 0, :] = np.where(
                np.arange(n)[:, None] % 4 == 1, 0, part[key][:, 0, :]
            )  # a real frame of zeros
            if key == "text":
                part[key][:, :1] = 1
            part[key][np.arange(count) >= lengths[:, None]] = 0
            if side == "front":
                for sample, length in zip(part[key], lengths, strict=True):
                    sample[:] = np.roll(sample, -length, axis=0)
            if key != "text" and not aligned:
                part[f"{key}_lengths"] = lengths.tolist()
        data[name] = part
    return data


def _import(
    tmp_path: Path, data: Any, dataset: str = "mosi", text: Any = None, protocol: int = 4, **options: Any
) -> Path:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(data, protocol=protocol))
    import_mmsa(tmp_path / "x.pkl", tmp_path / "x.h5", dataset, text=text, options=Options(**options))
    return tmp_path / "x.h5"


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_lengths_are_honoured_and_padding_moves_to_the_front(tmp_path: Path, protocol: int) -> None:
    data = _mmsa()
    path = _import(tmp_path, data, protocol=protocol)
    info = check_dataset(path)
    assert info.source == "CMU-MOSI, MMSA's pickle (unaligned, BERT)"
    assert (info.steps, info.label_kind) == ({"video": 6, "audio": 9, "language": 5}, "score")
    for name in SIZES:
        read = read_split(path, name, standardise=False)
        for modality in ("video", "audio"):
            given = data[name][KEYS[modality]]
            assert read.lengths[modality].tolist() == data[name][f"{KEYS[modality]}_lengths"]
            for moved, original, length in zip(read.arrays[modality], given, read.lengths[modality], strict=True):
                np.testing.assert_array_equal(moved[len(moved) - length :], original[:length])
                assert not moved[: len(moved) - length].any()
        assert read.groups == [f"{name}{i // 3}" for i in range(SIZES[name])]
        np.testing.assert_array_equal(read.scores, data[name]["regression_labels"])


def test_a_frame_of_zeros_at_the_beginning_is_data_where_lengths_say_so(tmp_path: Path) -> None:
    train = read_split(_import(tmp_path, _mmsa()), "train", standardise=False)
    first = train.arrays["video"][np.arange(12), -train.lengths["video"]]
    assert (~first.any(axis=1)).sum() == 3


def test_text_has_its_zeros_behind_for_padding(tmp_path: Path) -> None:
    data = _mmsa()
    train = read_split(_import(tmp_path, data), "train", standardise=False)
    used = data["train"]["text"].any(axis=2)
    assert train.lengths["language"].tolist() == used.sum(axis=1).tolist()
    assert train.arrays["language"][:, -1].any(axis=1).all()


def test_modalities_of_an_aligned_file_share_their_lengths(tmp_path: Path) -> None:
    data = _mmsa(aligned=True)
    path = _import(tmp_path, data)
    assert read_info(path).source == "CMU-MOSI, MMSA's pickle (aligned, BERT)"
    train = read_split(path, "train", standardise=False)
    assert train.lengths["video"].tolist() == train.lengths["audio"].tolist() == train.lengths["language"].tolist()
    assert train.lengths["language"].tolist() == data["train"]["text"].any(axis=2).sum(axis=1).tolist()


def test_lengths_decide_where_the_padding_is(tmp_path: Path) -> None:
    """MMSA can also pad in front; its lengths then count from the end."""
    behind, front = _mmsa(), _mmsa(side="front")
    for part in front.values():
        del part["text"]
    for name, part in front.items():
        part["text"] = behind[name]["text"]
    assert check_dataset(_import(tmp_path, behind)) == check_dataset(_import(tmp_path, front))


def test_lengths_that_fit_neither_side_are_refused_with_the_option(tmp_path: Path) -> None:
    data = _mmsa()
    data["train"]["audio"][:] = 1
    data["train"]["audio_lengths"] = [4] * 12
    with pytest.raises(UserError, match=r"before its last 4 steps, which its length calls real; .*--padding"):
        _import(tmp_path, data)
    train = read_split(_import(tmp_path, data, padding="behind"), "train", standardise=False)
    assert train.lengths["audio"].tolist() == [4] * 12
    assert not train.arrays["audio"][:, :5].any()


def test_lengths_that_count_what_was_cut_off_and_missing_modalities_are_reported(tmp_path: Path) -> None:
    data = _mmsa()
    data["train"]["audio"][2:4] = 1
    data["train"]["audio_lengths"][2:4] = [11, 9]
    data["test"]["vision"][5] = 0
    data["test"]["vision_lengths"][5] = 0
    said: list[str] = []
    path = _import(tmp_path, data, report=said.append)
    assert read_split(path, "train", ["audio"]).lengths["audio"][2:4].tolist() == [9, 9]
    assert any("audio_lengths of 1 sample count more than the 9 steps that are there" in line for line in said)
    assert any("video is missing (all zero) in 1 sample: test1$_$2" in line for line in said)


@pytest.mark.parametrize("bad", [[-1] * 12, [1.5] * 12, [3] * 11, ["a"] * 12])
def test_lengths_that_are_none_are_refused(tmp_path: Path, bad: Any) -> None:
    data = _mmsa()
    data["train"]["audio_lengths"] = bad
    with pytest.raises(UserError, match="'audio_lengths'"):
        _import(tmp_path, data)


def test_sims_has_its_own_range_and_bins(tmp_path: Path) -> None:
    data = _mmsa(scale=1 / 3, widths=(709, 33, 768))
    path = _import(tmp_path, data, "sims")
    info, train = read_info(path), read_split(path, "train", [])
    assert (info.score_range, len(info.classes)) == ((-1.0, 1.0), 5)
    assert info.source.startswith("CH-SIMS")
    centres = np.array([-1, -0.5, 0, 0.5, 1])
    assert train.labels.tolist() == np.abs(train.scores[:, None] - centres).argmin(axis=1).tolist()


@pytest.mark.parametrize(
    ("dataset", "data", "said"),
    [
        ("sims", _mmsa(), "stated is CH-SIMS .* vision and audio have 20 and 5 features"),
        (
            "sims",
            _mmsa(widths=(7, 8, 768)),
            "its labels go from -3 to 3, not within -1 to 1; if it is CMU-MOSI or CMU-MOSEI",
        ),
        (
            "mosei",
            _mmsa(scale=1 / 3, widths=(7, 8, 768)),
            "its labels go from -1 to 1, where CMU-MOSEI's go from -3 to 3",
        ),
        ("mosei", _mmsa(), "20 and 5 features; if it is CMU-MOSI, use --dataset mosi"),
    ],
)
def test_content_that_contradicts_the_data_set_is_refused(tmp_path: Path, dataset: str, data: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        _import(tmp_path, data, dataset)


def test_text_features_are_what_is_stated(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stated is --text glove \(300 features\), but 'text' has 768 features"):
        _import(tmp_path, _mmsa(), text="glove")
    assert "GloVe" in read_info(_import(tmp_path, _mmsa(widths=(20, 5, 300)), text="glove")).source


def test_infinity_in_audio_is_named_and_repaired_if_asked(tmp_path: Path) -> None:
    data = _mmsa()
    data["valid"]["audio"][2, 0, 1] = -np.inf
    with pytest.raises(UserError, match=r"'valid', modality 'audio', sample 'valid0\$_\$2': holds NaN or infinity"):
        _import(tmp_path, data)
    assert "1 infinite values of audio set to 0" in read_info(_import(tmp_path, data, replace_inf=0.0)).notes


def test_mult_s_file_is_sent_to_mult(tmp_path: Path) -> None:
    data = _mmsa()
    for part in data.values():
        part["labels"] = part.pop("regression_labels")
        for key in ("annotations", "classification_labels"):
            del part[key]
    with pytest.raises(UserError, match=r"'regression_labels' is missing; it has .*use `mmkd data import mult`"):
        _import(tmp_path, data)
