"""The UEA archive's .ts files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmkd.data import check_dataset, read_info, read_split
from mmkd.data.importers.importing import Options
from mmkd.data.importers.uea import import_uea
from mmkd.errors import UserError

HEADER = """\
#A comment
@problemName Motions
@timeStamps false
@missing false
@univariate false
@dimensions 4
@equalLength {equal}
@classLabel true walk run
@data
"""
MODALITIES = {"accelerometer": [0, 1, 2], "gyroscope": [3]}


def _line(case: np.ndarray, label: str) -> str:
    return ":".join(",".join(f"{value:.6g}" for value in dimension) for dimension in case) + f":{label}\n"


def _cases(samples: int, unequal: bool = True, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(4, int(rng.integers(3, 8)) if unequal else 7)).astype("f4") for _ in range(samples)]


def _write(folder: Path, **parts: list[np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for part, cases in parts.items():
        lines = [_line(case, ("walk", "run")[n % 2]) for n, case in enumerate(cases)]
        (folder / f"Motions_{part}.ts").write_text(HEADER.format(equal="false") + "".join(lines))
    return folder


def _import(tmp_path: Path, source: Path, modalities: Any = None, **options: Any) -> Path:
    import_uea(source, tmp_path / "x.h5", modalities or MODALITIES, options=Options(**options))
    return tmp_path / "x.h5"


def test_cases_of_unlike_lengths_become_modalities(tmp_path: Path) -> None:
    train, test = _cases(20), _cases(9, seed=1)
    path = _import(tmp_path, _write(tmp_path / "Motions", TRAIN=train, TEST=test))
    info = check_dataset(path)
    assert info.classes == ("run", "walk")
    assert info.sizes == {"train": 16, "valid": 4, "test": 9}
    assert (info.features, info.steps) == ({"accelerometer": 3, "gyroscope": 1}, dict.fromkeys(MODALITIES, 7))
    assert info.source == "Motions, UEA archive"
    read = read_split(path, "test", standardise=False)
    for case, sequence, length in zip(test, read.arrays["accelerometer"], read.lengths["accelerometer"], strict=True):
        assert length == case.shape[1]
        np.testing.assert_allclose(sequence[7 - length :], case[:3].T, rtol=1e-5)
    assert read.labels.tolist() == [1, 0] * 4 + [1]
    assert info.class_counts["valid"] == (2, 2), "about equal shares of the classes"


def test_validation_is_drawn_from_train_by_seed(tmp_path: Path) -> None:
    folder = _write(tmp_path / "Motions", TRAIN=_cases(20), TEST=_cases(3))
    first = read_split(_import(tmp_path, folder), "valid", []).ids
    assert first == read_split(_import(tmp_path, folder / "Motions_TEST.ts"), "valid", []).ids
    import_uea(folder, tmp_path / "x.h5", MODALITIES, seed=1)
    assert first != read_split(tmp_path / "x.h5", "valid", []).ids


def test_missing_values_behind_all_dimensions_end_a_case_and_others_are_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path / "Motions", TRAIN=_cases(10, unequal=False), TEST=_cases(3, unequal=False))
    file = folder / "Motions_TEST.ts"
    file.write_text(HEADER.format(equal="true") + "1,2,?:1,2,?:1,2,?:1,2,?:run\n1,2,3:4,5,6:7,8,9:1,1,1:walk\n")
    assert read_split(_import(tmp_path, folder), "test", []).ids == ["test-0", "test-1"]
    assert read_split(_import(tmp_path, folder), "test").lengths["gyroscope"].tolist() == [2, 3]
    file.write_text(HEADER.format(equal="true") + "1,?,2:1,2,2:1,2,2:1,2,2:run\n1,2,3:4,5,6:7,8,9:1,1,1:walk\n")
    with pytest.raises(UserError, match="sample 'test-0': holds NaN"):
        _import(tmp_path, folder)
    assert read_split(_import(tmp_path, folder, drop_nan=True), "test", []).ids == ["test-1"]


def test_equally_long_cases_with_zeros_behind_are_refused(tmp_path: Path) -> None:
    train = _cases(20, unequal=False)
    for case in train:
        case[:, 5:] = 0
    folder = _write(tmp_path / "Motions", TRAIN=train, TEST=_cases(3, unequal=False))
    with pytest.raises(UserError, match=r"20 of 23 samples end in all-zero steps .* --padding"):
        _import(tmp_path, folder)
    assert (read_split(_import(tmp_path, folder, padding="behind"), "train").lengths["gyroscope"] == 5).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1,2:3,4:5,6:7,8\n", "modality 'gyroscope' asks for dimension 3, but there are 3"),
        ("1,2:3,4:5,6:7,x:run\n", "line 10: could not convert string to float: 'x'"),
        ("1,2:3,4,5:5,6:7,8:run\n", "its dimensions have 2, 3, 2 steps"),
        ("1,2:3,4:run\n1,2:3,4:5,6:7,8:run\n", "cases have 2 to 4 dimensions"),
        ("1,2:3,4:run\n", "modality 'accelerometer' asks for dimension 2, but there are 2, from 0 to 1"),
        ("walk\n", "line 10: no ':' before a class"),
        ("1,2:3,4:5,6:7,8:\n", "line 10: no class after the last"),
        ("", "no case after @data"),
    ],
)
def test_lines_that_are_no_cases_are_named(tmp_path: Path, content: str, said: str) -> None:
    folder = _write(tmp_path / "Motions", TRAIN=_cases(10), TEST=_cases(3))
    (folder / "Motions_TEST.ts").write_text(HEADER.format(equal="false") + content)
    with pytest.raises(UserError, match=said):
        _import(tmp_path, folder)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("@timeStamps true\n@data\n", "has time stamps"),
        ("@classLabel false\n@data\n", "has no classes"),
        ("@targetLabel true\n@data\n", "has no classes"),
        ("a line\n", "line 1 is neither a header line"),
        ("", "no case after @data"),
        ("@relation x\n@data\n1,2,run\n", "no ':' before a class"),
    ],
)
def test_headers_of_other_tasks_are_refused(tmp_path: Path, header: str, said: str) -> None:
    folder = _write(tmp_path / "Motions", TRAIN=_cases(10), TEST=_cases(3))
    (folder / "Motions_TRAIN.ts").write_text(header)
    with pytest.raises(UserError, match=said):
        _import(tmp_path, folder)


def test_folders_without_a_problem_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no \*_TRAIN.ts"):
        _import(tmp_path, tmp_path / "empty")
    folder = _write(tmp_path / "Motions", TRAIN=_cases(10))
    with pytest.raises(UserError, match=r"Motions_TEST\.ts is missing beside Motions_TRAIN\.ts"):
        _import(tmp_path, folder)
    (folder / "Other_TRAIN.ts").write_text("")
    with pytest.raises(UserError, match="holds the problems Motions, Other; name a"):
        _import(tmp_path, folder)
    with pytest.raises(UserError, match="no such file or directory"):
        _import(tmp_path, tmp_path / "none")
    assert not (tmp_path / "x.h5").exists()


def test_numbers_that_name_classes_are_in_their_order(tmp_path: Path) -> None:
    folder = _write(tmp_path / "Motions", TRAIN=_cases(24), TEST=_cases(3))
    for name in ("TRAIN", "TEST"):
        file = folder / f"Motions_{name}.ts"
        file.write_text(file.read_text().replace(":walk", ":10").replace(":run", ":9"))
    assert read_info(_import(tmp_path, folder)).classes == ("9", "10")
