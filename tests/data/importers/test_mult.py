from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmkd.data import check_dataset, read_info, read_split
from mmkd.data.importers.importing import Options
from mmkd.data.importers.mult import import_mult, import_multibench
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
            "labels": SCORES[:n].reshape(n, 1, 1).copy(),
            "id": np.array([[f"vid{name}{i}", f"{i}.5", f"{i + 1}.25"] for i in range(n)]),
        }
    data["train"].update(change)
    return data


def _import(tmp_path: Path, data: Any, protocol: int = 4, dataset: str = "mosei", **options: Any) -> Path:
    (tmp_path / "mosei.pkl").write_bytes(pickle.dumps(data, protocol=protocol))
    emotion = options.pop("emotion", None)
    import_mult(tmp_path / "mosei.pkl", tmp_path / "mosei.h5", dataset, emotion=emotion, options=Options(**options))
    return tmp_path / "mosei.h5"


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
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


class _Python2(pickle._Pickler):  # type: ignore[name-defined]
    """Writes texts and bytes as Python 2 wrote its `str`."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_str(self, value: Any) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        if self.proto == 0:
            self.write(b"S" + repr(content)[1:].encode("ascii") + b"\n")
        else:
            self.write(b"T" + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_str


@pytest.mark.parametrize("protocol", [0, 2])
def test_a_pickle_of_python_2_gives_the_same_file(tmp_path: Path, protocol: int) -> None:
    data = _mult(id=np.array([[f"vid\xe9{n}", f"{n}.5"] for n in range(7)], dtype=object))
    expected = check_dataset(_import(tmp_path, data))
    made = io.BytesIO()
    _Python2(made, protocol).dump(data)
    content = made.getvalue().replace(b"numpy._core", b"numpy.core")
    assert (b"\nS'" if protocol == 0 else b"T\x06\x00\x00\x00") in content
    (tmp_path / "mosei.pkl").write_bytes(content)
    import_mult(tmp_path / "mosei.pkl", tmp_path / "mosei.h5", "mosei")
    assert check_dataset(tmp_path / "mosei.h5") == expected
    assert read_split(tmp_path / "mosei.h5", "train", []).ids[0] == "vid\xe90_0.5"


def test_the_class_is_the_score_rounded_half_to_even(tmp_path: Path) -> None:
    train = read_split(_import(tmp_path, _mult()), "train")
    assert train.labels.tolist() == [0, 1, 3, 3, 5, 6, 6]
    assert train.scores is not None
    np.testing.assert_allclose(train.scores, SCORES)


def test_infinity_is_refused_unless_a_value_is_given_for_it(tmp_path: Path) -> None:
    audio = np.ones((7, 10, 74))
    audio[2, 3, 4] = -np.inf
    audio[5] = -np.inf
    with pytest.raises(UserError, match=r"'audio', sample 'vidtrain2_.*--replace-inf 0"):
        _import(tmp_path, _mult(audio=audio))
    said: list[str] = []
    path = _import(tmp_path, _mult(audio=audio), replace_inf=0.0, report=said.append)
    train = read_split(path, "train", standardise=False)
    assert train.arrays["audio"][2, 3, 4] == 0.0
    assert not train.arrays["audio"][5].any()
    assert train.lengths["audio"].tolist() == [10, 10, 10, 10, 10, 1, 10]
    assert "741 infinite values of audio set to 0" in read_info(path).notes
    assert "audio is missing (all zero) in 1 sample: vidtrain5_5.5_6.25" in said


@pytest.mark.parametrize("key", ["vision", "audio", "text"])
def test_nan_is_refused_with_the_id_of_the_sample(tmp_path: Path, key: str) -> None:
    data = _mult()
    data["train"][key][3, -1, 0] = np.nan
    with pytest.raises(UserError, match=r"sample 'vidtrain3_3\.5_4\.25': holds NaN"):
        _import(tmp_path, data)
    assert not (tmp_path / "mosei.h5").exists()


def test_samples_with_nan_are_dropped_if_asked(tmp_path: Path) -> None:
    data = _mult()
    data["train"]["vision"][3, -1, 0] = np.nan
    data["train"]["labels"][5] = np.nan
    said: list[str] = []
    path = _import(tmp_path, data, drop_nan=True, report=said.append)
    assert read_info(path).sizes == {"train": 5, "valid": 3, "test": 5}
    assert read_split(path, "train", []).ids == [f"vidtrain{n}_{n}.5_{n + 1}.25" for n in (0, 1, 2, 4, 6)]
    assert any("dropped 1 sample of train with NaN: vidtrain3_3.5_4.25" in line for line in said)
    assert any("dropped 1 sample whose label is NaN: vidtrain5_5.5_6.25" in line for line in said)


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
        (np.arange(7), [str(n) for n in range(7)]),
        (list(range(7)), [str(n) for n in range(7)]),
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
        ({"audio": np.array(["a"] * 7)}, "'audio': dtype is <U1, not numbers"),
        ({"audio": np.full((7, 10, 74), 1e39)}, r"'audio', sample 'vidtrain0_.*': 1e\+39 does not fit float32"),
        ({"labels": np.zeros((7, 6))}, r"'labels' have the shape \(7, 6\), not \(N, 1, 1\)"),
        ({"id": ["a", "b"]}, "one id for each of 7 labels"),
        ({"text": np.zeros((6, 5, 300))}, r"'text': its shape is \(6, 5, 300\), not \(7"),
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
    assert "from mosei.pkl" in read_info(_import(tmp_path, _mult())).notes


def test_missing_keys_are_shown_beside_those_that_are_there(tmp_path: Path) -> None:
    data = _mult()
    del data["train"]["labels"]
    data["train"]["regression_labels"] = np.zeros(7)
    with pytest.raises(
        UserError, match=r"'labels' is missing; it has audio, id, regression_labels, .* `mmkd data import mmsa`"
    ):
        _import(tmp_path, data)


@pytest.mark.parametrize("name", ["dev", "validation", "val", b"valid"])
def test_other_names_of_the_validation_split_are_known(tmp_path: Path, name: Any) -> None:
    data = _mult()
    data[name] = data.pop("valid")
    assert read_info(_import(tmp_path, data)).sizes == SIZES


def test_two_validation_splits_are_refused(tmp_path: Path) -> None:
    data = _mult()
    data["dev"] = data["valid"]
    with pytest.raises(UserError, match="'valid' and 'dev' are both the split 'valid'"):
        _import(tmp_path, data)


def _large(labels: Any = None, vision: int = 35, audio: int = 74, samples: int = 10, **change: Any) -> dict[str, Any]:
    """Data of the layout with `samples` of each split; labels are a function of a generator, or MOSEI-like scores."""
    rng = np.random.default_rng(1)
    return {
        name: {
            "vision": rng.normal(size=(samples, 6, vision)),
            "audio": rng.normal(size=(samples, 7, audio)),
            "text": rng.normal(size=(samples, 5, 300)),
            "labels": rng.choice([-3, -1, 0, 2, 3], (samples, 1, 1)) if labels is None else labels(rng, samples),
            "id": np.array([f"{name}{n}[1]" for n in range(samples)]),
            **change,
        }
        for name in SIZES
    }


def test_mosi_gets_its_own_name(tmp_path: Path) -> None:
    info = read_info(_import(tmp_path, _large(vision=20, audio=5), dataset="mosi"))
    assert info.source == "CMU-MOSI, MulT's pickle (unaligned)"
    assert info.classes == ("-3", "-2", "-1", "0", "+1", "+2", "+3")


def test_an_aligned_file_is_called_aligned(tmp_path: Path) -> None:
    data = _large()
    for part in data.values():
        part["vision"], part["audio"] = part["vision"][:, :5], part["audio"][:, :5]
    said: list[str] = []
    assert read_info(_import(tmp_path, data, report=said.append)).source == "CMU-MOSEI, MulT's pickle (aligned)"
    assert said[0].startswith("CMU-MOSEI, aligned: video (5, 35)")


def _one_hot(rng: np.random.Generator, samples: int) -> np.ndarray:
    return np.eye(2)[rng.integers(0, 2, (samples, 4))]


@pytest.mark.parametrize("emotion", ["neutral", "happy", "sad", "angry"])
def test_iemocap_is_one_binary_task_for_each_emotion(tmp_path: Path, emotion: str) -> None:
    ids = np.array([f"Ses0{n % 3}F_impro01_{'FM'[n % 2]}00{n}" for n in range(10)])
    data = _large(_one_hot)
    for name in SIZES:
        data[name]["id"] = np.array([f"{one}{name}" for one in ids]) if name != "train" else ids
    path = _import(tmp_path, data, dataset="iemocap", emotion=emotion)
    info, train = read_info(path), read_split(path, "train", [])
    assert info.classes == (f"not {emotion}", emotion)
    assert (info.label_kind, info.score_range, info.source[:7]) == ("class", None, "IEMOCAP")
    column = ["neutral", "happy", "sad", "angry"].index(emotion)  # the order of MulT's eval_iemocap
    assert train.labels.tolist() == data["train"]["labels"][:, column, 1].astype(int).tolist()


def test_the_speaker_of_iemocap_is_the_group(tmp_path: Path) -> None:
    data = _large(_one_hot)
    for number, name in enumerate(SIZES):
        data[name]["id"] = np.array([f"Ses0{number}F_impro{n:02}_{'FM'[n % 2]}000" for n in range(10)])
    path = _import(tmp_path, data, dataset="iemocap", emotion="sad")
    assert read_split(path, "train", []).groups == ["Ses00 F", "Ses00 M"] * 5


def _fill(*values: float) -> Any:
    return lambda rng, samples: rng.permutation(np.resize(values, samples)).reshape(samples, 1, 1)


@pytest.mark.parametrize(
    ("dataset", "data", "said"),
    [
        (
            "mosei",
            _large(vision=20, audio=5),
            "stated is CMU-MOSEI .* vision and audio have 20 and 5 .* --dataset mosi",
        ),
        ("mosi", _large(vision=709, audio=33), "vision and audio have 709 and 33 features; if it is CH-SIMS"),
        ("mosei", _large(vision=371, audio=81), "371 and 81 features; if it is UR-FUNNY or MUStARD"),
        (
            "mosei",
            _large(_fill(-1, -0.6, 0, 0.4, 1)),
            "labels go from -1 to 1, where CMU-MOSEI's go from -3 to 3; .*sims",
        ),
        ("mosei", _large(_fill(1, 2, 3, 4, 5)), "its labels go from 1 to 5, not within -3 to 3"),
        ("mosei", _large(_fill(0, 1)), "its labels are only 0 and 1; if it is UR-FUNNY, use --dataset humor"),
        ("mosi", _large(_fill(-1, 1)), "its labels are only -1 and 1; if it is MUStARD"),
        ("mosei", _large(_one_hot), r"stated is CMU-MOSEI .* the shape \(10, 4, 2\); if it is IEMOCAP"),
        ("iemocap", _large(), r"stated is IEMOCAP .* the shape \(10, 1, 1\), not \(N, 4, 2\)"),
        ("iemocap", _large(lambda rng, n: rng.normal(size=(n, 4, 2))), "not one-hot"),
    ],
)
def test_content_that_contradicts_the_stated_data_set_is_refused(
    tmp_path: Path, dataset: str, data: Any, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        _import(tmp_path, data, dataset=dataset, emotion="sad" if dataset == "iemocap" else None)
    assert not (tmp_path / "mosei.h5").exists()


def test_sizes_of_another_data_set_are_refused(tmp_path: Path) -> None:
    data = {}
    for name, samples in {"train": 1284, "valid": 229, "test": 686}.items():
        one = _large(samples=1)[name]
        data[name] = {k: np.repeat(v[:, :1] if v.ndim > 1 else v, samples, axis=0) for k, v in one.items()}
        data[name]["labels"] = np.resize([-3.0, 0.0, 3.0], (samples, 1, 1))
        del data[name]["id"]
    with pytest.raises(UserError, match="have 1284, 229 and 686 samples; if it is CMU-MOSI, use --dataset mosi"):
        _import(tmp_path, data)


def test_iemocap_needs_an_emotion_and_nothing_else_has_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"choose one with --emotion \(neutral, happy, sad, angry\)"):
        _import(tmp_path, _large(_one_hot), dataset="iemocap")
    with pytest.raises(UserError, match="leave --emotion out"):
        _import(tmp_path, _large(), emotion="sad")


@pytest.mark.parametrize(
    ("dataset", "values", "classes"),
    [("humor", (0, 1), ("not humorous", "humorous")), ("sarcasm", (-1, 1), ("not sarcastic", "sarcastic"))],
)
def test_multibench_has_classes_of_values(
    tmp_path: Path, dataset: str, values: tuple[int, int], classes: tuple[str, str]
) -> None:
    data = _large(_fill(*values), vision=371, audio=81)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(data, protocol=2))
    import_multibench(tmp_path / "x.pkl", tmp_path / "x.h5", dataset)
    info = check_dataset(tmp_path / "x.h5")
    assert (info.classes, info.label_kind) == (classes, "class")
    labels = read_split(tmp_path / "x.h5", "train", []).labels
    assert labels.tolist() == (data["train"]["labels"].ravel() == values[1]).astype(int).tolist()
    with pytest.raises(UserError, match=f"not only {'0 and 1' if dataset == 'sarcasm' else '-1 and 1'}|not only"):
        import_multibench(tmp_path / "x.pkl", tmp_path / "y.h5", "sarcasm" if dataset == "humor" else "humor")


def test_multibench_s_scores_are_mult_s(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(_large(), protocol=2))
    import_multibench(tmp_path / "x.pkl", tmp_path / "x.h5", "mosei")
    info = read_info(tmp_path / "x.h5")
    assert info.source == "CMU-MOSEI, MultiBench's pickle (unaligned)"
    assert info.fingerprint == read_info(_import(tmp_path, _large())).fingerprint


def _padded(side: str) -> dict[str, Any]:
    """The same samples with zeros in front or behind."""
    data = _large(samples=20)
    for number, part in enumerate(data.values()):
        rng = np.random.default_rng(number)
        for key in ("vision", "audio", "text"):
            steps = part[key].shape[1]
            for sample in part[key]:
                length = int(rng.integers(2, steps + 1))
                sample[: steps - length] = 0
                if side == "behind":
                    sample[:] = np.roll(sample, length, axis=0)
    return data


def test_padding_behind_is_refused_with_the_option_that_decides(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"\d+ of 60 samples end in all-zero steps and 0 begin .* --padding front, behind"
    ):
        _import(tmp_path, _padded("behind"))


def test_padding_in_front_and_behind_give_identical_files(tmp_path: Path) -> None:
    front = check_dataset(_import(tmp_path, _padded("front")))
    behind = check_dataset(_import(tmp_path, _padded("behind"), padding="behind"))
    assert front == behind


def test_padding_none_makes_every_step_data(tmp_path: Path) -> None:
    train = read_split(_import(tmp_path, _padded("behind"), padding="none"), "train", standardise=False)
    assert (train.lengths["video"] == 6).all()
    assert (train.arrays["video"][:, -1] == 0).all(1).any()


def test_a_few_samples_that_end_in_zeros_are_data(tmp_path: Path) -> None:
    data = _padded("front")
    data["train"]["vision"][:3, -1] = 0
    train = read_split(_import(tmp_path, data), "train", standardise=False)
    assert (train.arrays["video"][:3, -1] == 0).all()
