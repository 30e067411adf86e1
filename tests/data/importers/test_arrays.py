"""A folder of one's own recordings and a table of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmkd.data import check_dataset, read_info, read_split
from mmkd.data.importers.arrays import import_arrays
from mmkd.data.importers.importing import Options
from mmkd.data.importers.label_table import Scores
from mmkd.errors import UserError

SAMPLES = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Audio as .npy of unlike lengths, video as .csv with a header or .npz, and a table with all columns."""
    rng = np.random.default_rng(0)
    place = tmp_path / "mine"
    (place / "audio").mkdir(parents=True)
    (place / "video").mkdir()
    lines = ["id,label,split,group"]
    for n in range(SAMPLES):
        np.save(place / "audio" / f"s{n}.npy", rng.normal(size=(3 + n % 5, 4)))
        video = rng.normal(size=(2 + n % 3, 2)).astype("f4")
        if n % 2:
            np.savez(place / "video" / f"s{n}.npz", video=video)
        else:
            rows = "\n".join(",".join(f"{value:.9g}" for value in row) for row in video)
            (place / "video" / f"s{n}.csv").write_text(f"x,y\n{rows}\n")
        split = "train" if n < 12 else "dev" if n < 16 else "test"
        lines.append(f"s{n},{('sad', 'happy')[n % 2]},{split},person {n // 4}")
    (place / "labels.csv").write_text("\n".join(lines) + "\n")
    return place


def _import(folder: Path, **change: Any) -> Path:
    options = Options(**{key: change.pop(key) for key in ("padding", "drop_nan", "report") if key in change})
    import_arrays(folder, folder.parent / "x.h5", options=options, **change)
    return folder.parent / "x.h5"


def test_recordings_of_unlike_lengths_become_a_data_file(folder: Path) -> None:
    path = _import(folder)
    info = check_dataset(path)
    assert info.classes == ("happy", "sad")
    assert info.sizes == {"train": 12, "valid": 4, "test": 4}
    assert (info.steps, info.features) == ({"audio": 7, "video": 4}, {"audio": 4, "video": 2})
    test = read_split(path, "test", standardise=False)
    assert test.ids == [f"s{n}" for n in range(16, 20)]
    assert test.groups == ["person 4"] * 4
    assert test.labels.tolist() == [1, 0, 1, 0]
    for row, n in enumerate(range(16, 20)):
        original = np.load(folder / "audio" / f"s{n}.npy")
        assert test.lengths["audio"][row] == len(original)
        np.testing.assert_array_equal(test.arrays["audio"][row, 7 - len(original) :], original.astype("f4"))


def test_zeros_at_the_ends_of_recordings_of_unlike_lengths_are_data(folder: Path) -> None:
    for n in range(SAMPLES):
        array = np.load(folder / "audio" / f"s{n}.npy")
        array[0] = array[-1] = 0
        np.save(folder / "audio" / f"s{n}.npy", array)
    train = read_split(_import(folder), "train", standardise=False)
    assert train.lengths["audio"].tolist() == [3 + n % 5 for n in range(12)]


def _table(folder: Path, change: Any) -> None:
    lines = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join(change(lines)) + "\n")


def _columns(*kept: int) -> Any:
    return lambda lines: [",".join(line.split(",")[column] for column in kept) for line in lines]


def test_parts_are_drawn_where_the_table_has_none(folder: Path) -> None:
    _table(folder, _columns(0, 1))
    info = read_info(_import(folder))
    assert sorted(info.sizes.values()) == [4, 4, 12]
    assert all(min(counts) >= 1 for counts in info.class_counts.values()), "classes in about equal shares"
    assert "parts drawn by sample, seed 0" in info.notes
    assert info.fingerprint == read_info(_import(folder)).fingerprint != read_info(_import(folder, seed=1)).fingerprint


def test_no_group_is_in_two_drawn_parts(folder: Path) -> None:
    _table(folder, _columns(0, 1, 3))
    path = _import(folder)
    groups = [set(read_split(path, part, []).groups) for part in ("train", "valid", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 5


def test_numbers_that_name_classes_and_ids_with_endings(folder: Path) -> None:
    _table(folder, lambda lines: [lines[0], *(f"s{n}.npy,{7 + n % 2 * 3},train" if n < 12 else
           f"s{n}.npy,{7 + n % 2 * 3},{'val' if n < 16 else 'Test'}" for n in range(SAMPLES))])  # fmt: skip
    _table(folder, lambda lines: ["file,class,set", *lines[1:]])
    assert read_info(_import(folder)).classes == ("7", "10")


def test_scores_have_their_own_range_and_bins(folder: Path) -> None:
    _table(
        folder, lambda lines: [lines[0], *(line.replace("sad", "1.25").replace("happy", "4.5") for line in lines[1:])]
    )
    with pytest.raises(UserError, match=r"label 1\.25 of sample 's0' is no class; for scores give --scores="):
        _import(folder)
    path = _import(folder, scores=Scores(1, 5, 5))
    info, train = read_info(path), read_split(path, "train", [])
    assert (info.score_range, info.classes) == ((1.0, 5.0), ("1", "2", "3", "4", "5"))
    assert train.labels[:2].tolist() == [0, 3]  # 4.5 is halfway and goes to the even score
    with pytest.raises(UserError, match=r"sample 's1' has the score 4\.5, stated is --scores=1,4,4"):
        _import(folder, scores=Scores(1, 4, 4))


def test_a_missing_modality_is_reported_by_the_name_of_the_sample(folder: Path) -> None:
    (folder / "audio" / "s3.npy").unlink()
    (folder / "audio" / "s7.npy").unlink()
    with pytest.raises(UserError, match=r"audio is missing in 2 samples of labels\.csv: s3, s7; add the files"):
        _import(folder)


def test_files_without_a_line_are_reported(folder: Path) -> None:
    np.save(folder / "audio" / "extra.npy", np.ones((2, 4)))
    said: list[str] = []
    _import(folder, report=said.append)
    assert "audio: 1 file without a line in labels.csv left out: extra" in said


def _spoil(folder: Path, what: str) -> None:
    audio = folder / "audio"
    table = folder / "labels.csv"
    text = table.read_text()
    spoil: dict[str, Any] = {
        "no table": table.unlink,
        "empty table": lambda: table.write_text("id,label\n"),
        "no id": lambda: table.write_text(text.replace("id,", "identity,", 1)),
        "no label": lambda: table.write_text(text.replace(",label", ",lable", 1)),
        "semicolons": lambda: table.write_text(text.replace(",", ";")),
        "id twice": lambda: table.write_text(text.replace("s4,", "s3,")),
        "empty cell": lambda: table.write_text(text.replace("s4,sad", "s4,")),
        "unknown split": lambda: table.write_text(text.replace("dev", "holdout")),
        "no valid": lambda: table.write_text(text.replace("dev", "train")),
        "table of latin1": lambda: table.write_bytes(text.replace("sad", "s\xe4d").encode("latin1")),
        "more cells": lambda: table.write_text(text.replace("s4,sad", "s4,sad,x")),
        "other features": lambda: np.save(audio / "s4.npy", np.ones((7, 5))),
        "transposed": lambda: np.save(audio / "s4.npy", np.ones((4, 3))),
        "three axes": lambda: np.save(audio / "s4.npy", np.ones((4, 3, 1))),
        "no steps": lambda: np.save(audio / "s4.npy", np.ones((0, 4))),
        "texts": lambda: np.save(audio / "s4.npy", np.array([["a"]])),
        "objects": lambda: np.save(audio / "s4.npy", np.array([{}]), allow_pickle=True),
        "too large": lambda: np.save(audio / "s4.npy", np.full((3, 4), 1e39)),
        "NaN": lambda: np.save(audio / "s4.npy", np.full((3, 4), np.nan)),
        "not numpy": lambda: (audio / "s4.npy").write_bytes(b"RIFF"),
        "two arrays": lambda: np.savez(folder / "video" / "s1.npz", a=np.ones(3), b=np.ones(3)),
        "no archive": lambda: (folder / "video" / "s1.npz").write_bytes(b"PK"),
        "word in csv": lambda: (folder / "video" / "s0.csv").write_text("1,2\n3,x\n"),
        "ragged csv": lambda: (folder / "video" / "s0.csv").write_text("1,2\n3\n"),
        "decimal commas": lambda: (folder / "video" / "s0.csv").write_text("x;y\n1,5;2,5\n"),
        "empty csv": lambda: (folder / "video" / "s0.csv").write_text(""),
        "sample twice": lambda: np.save(folder / "video" / "s0.npy", np.ones((2, 2))),
        "a folder of wav": lambda: ((folder / "wav").mkdir(), (folder / "wav" / "a.wav").write_bytes(b"RIFF....WAVE")),
    }
    spoil[what]()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no table", r"labels\.csv: no such table; write a CSV file"),
        ("empty table", "has no line after the header"),
        ("no id", "no column 'id' among identity, label, split, group"),
        ("no label", "no column 'label' among id, lable, split, group; did you mean lable"),
        ("semicolons", "separate columns with commas"),
        ("id twice", "id 's3' is in line 5 and in line 6"),
        ("empty cell", "line 6 has nothing in the column 'label'"),
        ("unknown split", "line 14: split 'holdout' is none of train, valid"),
        ("no valid", "no sample of valid in the column split"),
        ("table of latin1", "not a CSV file in UTF-8"),
        ("more cells", "line 6 has more cells than the header"),
        ("other features", r"s4\.npy: its shape is \(7, 5\), but s0\.npy has \(3, 4\)"),
        ("transposed", "transposed"),
        ("three axes", r"its shape is \(4, 3, 1\), not \(steps, features\)"),
        ("no steps", r"its shape is \(0, 4\)"),
        ("texts", r"s4\.npy: dtype is <U1, not numbers"),
        ("objects", r"s4\.npy: not readable"),
        ("too large", r"s4\.npy: 1e\+39 does not fit float32"),
        ("NaN", "sample 's4': holds NaN"),
        ("not numpy", r"s4\.npy: not readable .*it is a recording"),
        ("two arrays", r"s1\.npz: holds a, b; store one array"),
        ("no archive", r"s1\.npz: not readable"),
        ("word in csv", r"s0\.csv: row 2: 'x' is not a number"),
        ("ragged csv", r"s0\.csv: row 2 has 1 values, the first has 2"),
        ("decimal commas", r"s0\.csv: row 1: '5;2' is not a number; separate values with commas"),
        ("empty csv", r"s0\.csv: its shape is \(0, 1\)"),
        ("sample twice", r"s0\.csv and s0\.npy are the same sample"),
        ("a folder of wav", r"wav: has no \.npy.* but a\.wav; it is a recording .*extract them first"),
    ],
)
def test_what_cannot_be_read_is_named_and_nothing_is_written(folder: Path, what: str, said: str) -> None:
    _spoil(folder, what)
    with pytest.raises(UserError, match=said):
        _import(folder)
    assert not (folder.parent / "x.h5").exists()


def test_a_file_in_place_of_the_folder_is_identified(folder: Path) -> None:
    with pytest.raises(UserError, match=r"not a folder of recordings; it is a table of text"):
        _import(folder / "labels.csv")
