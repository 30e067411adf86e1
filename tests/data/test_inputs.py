"""What users hold: each input is stored without a change, or refused with what to do. Nothing in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from mmkd.data import SPLITS, Split, check_dataset, read_split, write_dataset
from mmkd.errors import UserError

N, STEPS, FEATURES = 6, 5, 2
FACTS: dict[str, Any] = {"classes": ["no", "yes"], "source": "synthetic (tests)", "license": "none"}


def _base() -> dict[str, Split]:
    """Whole numbers, so that other dtypes hold them exactly; none is 0."""
    rng = np.random.default_rng(0)
    return {
        name: Split(
            arrays={"video": rng.integers(1, 100, (N, STEPS, FEATURES)).astype("f4")},
            labels=np.array([0, 1] * 3),
            ids=[str(N * number + n) for n in range(N)],
            groups=[name] * N,
        )
        for number, name in enumerate(SPLITS)
    }


Change = Callable[[dict[str, Split]], Any]


def _video(change: Callable[[np.ndarray], Any]) -> Change:
    """Change the features of all splits."""
    return lambda splits: {n: replace(s, arrays={"video": change(s.arrays["video"])}) for n, s in splits.items()}


def _part(**change: Callable[[Any], Any]) -> Change:
    """Change other parts of all splits."""
    return lambda splits: {
        n: replace(s, **{key: make(getattr(s, key)) for key, make in change.items()}) for n, s in splits.items()
    }


def _objects(items: Any) -> np.ndarray:
    made = np.empty(len(items), object)
    made[:] = list(items)
    return made


def _texts(labels: np.ndarray) -> list[str]:
    return [("no", "yes")[label] for label in labels]


STORED: dict[str, tuple[Change, dict[str, Any]]] = {
    "float32": (_video(lambda x: x), {}),
    "float64": (_video(lambda x: x.astype("f8")), {}),
    "long double": (_video(lambda x: x.astype(np.longdouble)), {}),
    "big-endian": (_video(lambda x: x.astype(">f4")), {}),
    "int16": (_video(lambda x: x.astype("i2")), {}),
    "int64": (_video(lambda x: x.astype("i8")), {}),
    "uint8": (_video(lambda x: x.astype("u1")), {}),
    "Fortran's order": (_video(np.asfortranarray), {}),
    "every second value of a larger array": (_video(lambda x: np.repeat(x, 2, axis=2)[:, :, ::2]), {}),
    "a read-only array": (_video(lambda x: np.frombuffer(x.tobytes(), "f4").reshape(x.shape)), {}),
    "nested lists": (_video(lambda x: x.tolist()), {}),
    "a list of arrays": (_video(list), {}),
    "a tuple of arrays": (_video(tuple), {}),
    "a list of float64 arrays": (_video(lambda x: list(x.astype("f8"))), {}),
    "a list of lists of lists": (_video(lambda x: [sample.tolist() for sample in x]), {}),
    "an object array of arrays": (_video(_objects), {}),
    "an object array of numbers": (_video(lambda x: x.astype(object)), {}),
    "a tensor": (_video(torch.from_numpy), {}),
    "a tensor with a gradient": (_video(lambda x: torch.from_numpy(x).requires_grad_()), {}),
    "a list of tensors": (_video(lambda x: [torch.from_numpy(sample) for sample in x]), {}),
    "a list of data frames": (_video(lambda x: [pd.DataFrame(sample) for sample in x]), {}),
    "a masked array that masks nothing": (_video(lambda x: np.ma.masked_array(x, mask=False)), {}),
    "labels in a list": (_part(labels=lambda y: y.tolist()), {}),
    "labels of uint8": (_part(labels=lambda y: y.astype("u1")), {}),
    "labels in a tensor": (_part(labels=torch.from_numpy), {}),
    "labels that are True and False": (_part(labels=lambda y: y == 1), {}),
    "labels that are texts": (_part(labels=_texts), {}),
    "labels that are bytes": (_part(labels=lambda y: np.array(_texts(y), "S")), {}),
    "labels that are objects": (_part(labels=lambda y: np.array(_texts(y), object)), {}),
    "numbers as objects": (_part(labels=lambda y: y.astype(object)), {}),
    "texts without classes": (_part(labels=_texts), {"classes": None}),
    "ids that are bytes": (_part(ids=lambda ids: [name.encode() for name in ids]), {}),
    "ids that are numbers": (_part(ids=lambda ids: [int(name) for name in ids]), {}),
    "ids in an array": (_part(ids=np.array), {}),
    "ids in an array of numbers": (_part(ids=lambda ids: np.array(ids, int)), {}),
    "groups that are bytes": (_part(groups=lambda names: np.array(names, "S")), {}),
    "classes that are bytes": (_part(), {"classes": (b"no", b"yes")}),
    "splits called training, validation, testing": (
        lambda s: {"training": s["train"], "validation": s["valid"], "testing": s["test"]},
        {},
    ),
    "splits called Train, dev, TEST": (lambda s: {"Train": s["train"], "dev": s["valid"], "TEST": s["test"]}, {}),
    "splits in another order": (lambda s: {"test": s["test"], "valid": s["valid"], "train": s["train"]}, {}),
    "lengths in a list": (_part(lengths=lambda _: {"video": [STEPS] * N}), {}),
    "lengths in a tensor": (_part(lengths=lambda _: {"video": torch.full((N,), STEPS)}), {}),
    "no padding": (_part(), {"padding": "none"}),
}


@pytest.mark.parametrize("case", STORED)
def test_what_can_be_stored_exactly_is(tmp_path: Path, case: str) -> None:
    change, facts = STORED[case]
    expected = write_dataset(tmp_path / "base.h5", _base(), **FACTS)
    assert write_dataset(tmp_path / "x.h5", change(_base()), **{**FACTS, **facts}) == expected
    check_dataset(tmp_path / "x.h5")


LENGTHS = np.array([1, 2, 3, 4, 5, 5])


def _padded(splits: dict[str, Split], side: str) -> dict[str, Split]:
    outside = np.arange(STEPS) < STEPS - LENGTHS[:, None]
    for split in splits.values():
        split.arrays["video"][outside if side == "front" else outside[:, ::-1]] = 0
    return splits


def _moved(splits: dict[str, Split]) -> dict[str, Split]:
    """The samples that are padded in front in `splits`, padded behind."""
    for split in splits.values():
        for sample, length in zip(split.arrays["video"], LENGTHS, strict=True):
            sample[:] = np.roll(sample, length, axis=0)
    return splits


def _with_lengths(splits: dict[str, Split]) -> dict[str, Split]:
    return {n: replace(s, lengths={"video": LENGTHS}) for n, s in splits.items()}


def _ragged(splits: dict[str, Split], convert: Callable[[np.ndarray], Any] = np.array) -> dict[str, Split]:
    return {
        n: replace(s, arrays={"video": [convert(x[-t:]) for x, t in zip(s.arrays["video"], LENGTHS, strict=True)]})
        for n, s in splits.items()
    }


PADDED: dict[str, tuple[Change, dict[str, Any]]] = {
    "padded in front": (lambda s: s, {}),
    "padded in front, with lengths": (_with_lengths, {}),
    "padded behind, with lengths": (lambda s: _with_lengths(_moved(s)), {}),
    "padded behind, as stated": (_moved, {"padding": "behind"}),
    "padded behind, as stated, with lengths": (lambda s: _with_lengths(_moved(s)), {"padding": "behind"}),
    "arrays of unlike lengths": (_ragged, {}),
    "float64 arrays of unlike lengths": (lambda s: _ragged(s, lambda x: x.astype("f8")), {}),
    "lists of unlike lengths": (lambda s: _ragged(s, lambda x: x.tolist()), {}),
    "tensors of unlike lengths": (lambda s: _ragged(s, torch.tensor), {}),
    "an object array of unlike arrays": (
        lambda s: {n: replace(p, arrays={"video": _objects(p.arrays["video"])}) for n, p in _ragged(s).items()},
        {},
    ),
    "noise outside the lengths, the side stated": (
        lambda s: {
            n: replace(p, arrays={"video": np.where(p.arrays["video"] == 0, 7, p.arrays["video"])})
            for n, p in _with_lengths(s).items()
        },
        {"padding": "front"},
    ),
}


@pytest.mark.parametrize("case", PADDED)
def test_padding_on_any_side_gives_one_file(tmp_path: Path, case: str) -> None:
    change, facts = PADDED[case]
    expected = write_dataset(tmp_path / "base.h5", _padded(_base(), "front"), **FACTS)
    given = change(_padded(_base(), "front"))
    before = {n: s.arrays["video"].copy() for n, s in given.items() if isinstance(s.arrays["video"], np.ndarray)}
    assert write_dataset(tmp_path / "x.h5", given, **{**FACTS, **facts}) == expected
    for name, array in before.items():
        if array.dtype != object:
            np.testing.assert_array_equal(given[name].arrays["video"], array, err_msg="the caller's array was changed")
    assert read_split(tmp_path / "x.h5", "train").lengths["video"].tolist() == LENGTHS.tolist()


def _one(value: Any, where: Any = (3, 1, 1)) -> Change:
    def change(x: np.ndarray) -> np.ndarray:
        made = x.astype(np.asarray(value).dtype) if np.asarray(value).dtype.kind in "fi" else x.astype(object)
        made[where] = value
        return made

    return lambda splits: {**splits, "valid": _video(change)({"valid": splits["valid"]})["valid"]}


def _list_with(item: Any) -> Change:
    return _video(lambda x: [*x[:-1], item])


REFUSED: dict[str, tuple[Change, dict[str, Any], str]] = {
    "a float64 beyond float32": (_one(np.float64(1e39)), {}, r"'valid', modality 'video', sample '9': 1e\+39 .*scale"),
    "minus that": (_one(np.float64(-1e300)), {}, r"sample '9': -1e\+300 does not fit float32; scale"),
    "a whole number beyond float32": (
        _one(np.int64(2**24 + 1)),
        {},
        "sample '9': 16777217 does not fit float32; scale",
    ),
    "NaN": (_one(np.float32(np.nan)), {}, "'video', sample '9': holds NaN or infinity; repair or drop"),
    "infinity": (_one(np.float64(-np.inf)), {}, "sample '9': holds NaN or infinity; repair or drop"),
    "None among objects": (_one(None), {}, r"sample '9': holds NoneType, not numbers; convert it"),
    "texts among objects": (_one("x"), {}, r"sample '9': holds str, not numbers; convert it"),
    "complex numbers": (_video(lambda x: x.astype(complex)), {}, r"complex128, not numbers; convert it with \.astype"),
    "texts": (_video(lambda x: x.astype(str)), {}, r"not numbers; convert it with \.astype\('float32'\)"),
    "dates": (_video(lambda x: x.astype("M8[s]")), {}, "datetime64.*not numbers; convert it"),
    "masked values": (
        _video(lambda x: np.ma.masked_equal(x, x[0, 0, 0])),
        {},
        r"masked values; fill them with x\.filled",
    ),
    "two axes": (_video(lambda x: x[:, 0]), {}, r"shape is \(6, 2\), not \(6, steps, features\)"),
    "four axes": (_video(lambda x: x[None]), {}, r"shape is \(1, 6, 5, 2\), not \(6, steps"),
    "no features": (_video(lambda x: x[:, :, :0]), {}, r"shape is \(6, 5, 0\), not"),
    "too few samples": (_video(lambda x: x[:-1]), {}, r"shape is \(5, 5, 2\), not \(6, steps"),
    "an empty list": (_video(lambda x: []), {}, r"not \(6, steps, features\), one row per label"),
    "a sample of other features": (
        _list_with(np.ones((5, 3))),
        {},
        r"sample '5': its shape is \(5, 3\), not .*\(5, 2\)",
    ),
    "a sample without steps": (_list_with(np.ones((0, 2))), {}, r"sample '5': its shape is \(0, 2\), not \(steps"),
    "a sample that is a number": (_list_with(3.0), {}, r"sample '5': its shape is \(\), not \(steps"),
    "a sample that is None": (_list_with(None), {}, r"its shape is \(\), not|holds NoneType"),
    "a ragged sample": (_list_with([[1, 2], [3]]), {}, r"no array of numbers .*build one with np\.stack"),
    "a number instead of features": (_video(lambda x: 3), {}, "no array of numbers"),
    "zeros behind": (lambda s: _moved(_padded(s, "front")), {}, "12 of 18 samples end in all-zero steps .*padding="),
    "lengths of the other side's noise": (
        lambda s: {n: replace(p, lengths={"video": LENGTHS}) for n, p in s.items()},
        {},
        r"sample '0': has values other than 0 before its last 1 steps.* or name the side",
    ),
    "a length of 0": (_part(lengths=lambda _: {"video": [0] * N}), {}, "length 0 is not in 1..5"),
    "lengths of half steps": (
        _part(lengths=lambda _: {"video": [2.5] * N}),
        {},
        r"lengths are float64 .* not integers",
    ),
    "too few lengths": (_part(lengths=lambda _: {"video": [5]}), {}, r"lengths are int64 \(1,\), not integers \(6,\)"),
    "lengths of a list": (
        lambda s: _with_lengths(_ragged(_padded(s, "front"))),
        {},
        "a list has its own lengths; leave lengths= out",
    ),
    "a side that is none": (_part(), {"padding": "left"}, r"unknown padding 'left' .*choices: behind, front, none"),
    "classes in one text": (
        _part(),
        {"classes": "no,yes"},
        r"is one text; give a list of names: classes=\['no', 'yes'\]",
    ),
    "classes that are numbers": (_part(), {"classes": [0, 1]}, "class name 0: one line of printable"),
    "one class": (_part(), {"classes": ["no"]}, "give two or more names"),
    "a class twice": (_part(), {"classes": ["no", "no"]}, "all different"),
    "no classes": (_part(), {"classes": None}, r"classes are missing; give their names .*classes=\['no', 'yes'\]"),
    "labels of another class": (_part(labels=lambda y: y + 1), {}, r"sample '1': label 2 is not in 0\.\.1"),
    "a text that is no class": (
        _part(labels=lambda y: ["no"] * 5 + ["yess"]),
        {},
        "sample '5' .*'yess'; did you mean yes",
    ),
    "labels of float": (
        _part(labels=lambda y: y.astype(float)),
        {},
        r"float64 .*convert whole numbers with \.astype\(int",
    ),
    "labels in one column": (
        _part(labels=lambda y: y[:, None]),
        {},
        r"\(6, 1\), not .*convert them with \.reshape\(-1\)",
    ),
    "labels that are one-hot": (_part(labels=lambda y: np.eye(2)[y]), {}, r"convert one-hot ones with \.argmax\(1\)"),
    "True and False of three classes": (_part(labels=lambda y: y == 1), {"classes": list("abc")}, "labels are bool"),
    "labels that are None": (_part(labels=lambda y: [None] * N), {}, "labels are object"),
    "masked labels": (_part(labels=lambda y: np.ma.masked_equal(y, 1)), {}, r"labels: a masked array .*fill them"),
    "too few labels": (_part(labels=lambda y: y[:-1]), {}, "labels, but 6 ids"),
    "ids twice": (_part(ids=lambda ids: ["a"] * N), {}, "sample id 'a' occurs in .* ids must be unique"),
    "ids in Latin-1": (_part(ids=lambda ids: [b"\xe4", *ids[1:]]), {}, r"is not UTF-8; convert it with \.decode"),
    "ids in one text": (_part(ids=lambda ids: "abcdef"), {}, "'abcdef' is one text; give a list with one for each"),
    "ids that are None": (_part(ids=lambda ids: [None] * N), {}, "sample id None is not a printable text"),
    "ids of two lines": (_part(ids=lambda ids: ["a\nb", *ids[1:]]), {}, "is not a printable text"),
    "groups of some samples": (_part(groups=lambda names: names[1:]), {}, "6 labels, but 5 groups"),
    "groups that are None": (_part(groups=lambda names: [None] * N), {}, "group None is not a printable text"),
    "dev beside valid": (
        lambda s: {**s, "dev": s["valid"]},
        {},
        "'valid' and 'dev' are both the split 'valid'; keep one",
    ),
    "no validation": (
        lambda s: {"train": s["train"], "test": s["test"]},
        {},
        "must be train, valid, test, not train, test",
    ),
    "a fourth split": (lambda s: {**s, "extra": s["test"]}, {}, "must be train, valid, test, not .*extra"),
    "another number of features in test": (
        lambda s: {**s, "test": replace(s["test"], arrays={"video": s["test"].arrays["video"][:, :, :1]})},
        {},
        r"\(5, 1\) steps and features, but train has \(5, 2\)",
    ),
    "scores without a range": (_part(scores=lambda _: [0.0] * N), {}, "has scores, but label_kind is 'class'"),
    "scores of texts": (_part(scores=lambda _: ["a"] * N), {}, "scores: dtype is <U1, not numbers"),
    "a modality that is a path": (
        lambda s: {n: replace(p, arrays={"../x": p.arrays["video"]}) for n, p in s.items()},
        {},
        r"modality name '\.\./x': use 1 to 40 letters",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_stored_exactly_is_refused_with_what_to_do(tmp_path: Path, case: str) -> None:
    change, facts, said = REFUSED[case]
    with pytest.raises(UserError, match=said) as refusal:
        write_dataset(tmp_path / "x.h5", change(_base()), **{**FACTS, **facts})
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_the_tables_have_at_least_80_inputs() -> None:
    assert len(STORED) + len(PADDED) + len(REFUSED) >= 80


def test_float16_stays_float16(tmp_path: Path) -> None:
    splits = _video(lambda x: list(x.astype("f2")))(_base())
    write_dataset(tmp_path / "x.h5", splits, **FACTS)
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["train/arrays/video"].dtype == np.float16
    read = read_split(tmp_path / "x.h5", "train", standardise=False).arrays["video"]
    np.testing.assert_array_equal(read, _base()["train"].arrays["video"])
