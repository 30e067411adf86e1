"""`python -m mmkd.data` as a user meets it."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import FACTS, make_splits

from mmkd.data import Split, write_dataset
from mmkd.data.__main__ import main
from mmkd.data.hdf5_format import open_dataset
from mmkd.data.summary import find_oddities
from mmkd.errors import UserError

ROOT = Path(__file__).parents[2]


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """What the command prints and returns, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def _fails(*arguments: object) -> str:
    """The one line on standard error of a command that must fail."""
    result = _run(*arguments)
    assert result.returncode == 2, result
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_help_teaches_by_examples() -> None:
    result = _run("--help")
    assert result.returncode == 0
    assert "python -m mmkd.data synthetic synthetic.h5" in result.stdout
    assert "write_dataset" in result.stdout


def test_synthetic_then_inspect(tmp_path: Path) -> None:
    made = _run("synthetic", tmp_path / "s.h5", "--seed", 3)
    assert made.returncode == 0
    assert "1000 / 400 / 800 samples" in made.stdout
    account = _run("inspect", tmp_path / "s.h5")
    assert account.returncode == 0
    for part in ("synthetic (small, seed 3)", "majority share", "language", "matches the content", "imbalanced"):
        assert part in account.stdout


def test_an_existing_file_is_replaced_by_force_only(data_file: Path) -> None:
    before = data_file.read_bytes()
    assert "data.h5: exists; choose another name or give --force" in _fails("synthetic", data_file)
    assert data_file.read_bytes() == before
    assert _run("synthetic", data_file, "--force").returncode == 0
    assert data_file.read_bytes() != before


def test_a_malicious_pickle_is_one_line_and_runs_nothing(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> object:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"train": Attack()}))
    assert "bad.pkl: refused, it asks for posix.system" in _fails(
        "import", "mosei", tmp_path / "bad.pkl", tmp_path / "out.h5"
    )
    assert os.listdir(tmp_path) == ["bad.pkl"]


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("text")
    assert "not an HDF5 file" in _fails("inspect", tmp_path / "text.h5")
    assert "no such directory or archive" in _fails("import", "utd-mhad", tmp_path / "none", tmp_path / "out.h5")
    assert "does not exist; make it first" in _fails("synthetic", tmp_path / "none" / "out.h5")
    assert os.listdir(tmp_path) == ["text.h5"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, where nobody can make files")
def test_a_folder_that_cannot_be_written_is_one_line() -> None:
    assert "error: /proc/out.h5: " in _fails("synthetic", "/proc/out.h5")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    command = f"ulimit -f 200; exec {sys.executable} -m mmkd.data synthetic {tmp_path / 'full.h5'}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (result.returncode, result.stderr) == (1, f"error: {tmp_path / 'full.h5'}: File too large\n")
    assert os.listdir(tmp_path) == []


def _odd_splits() -> dict[str, Split]:
    splits = make_splits()
    for split in splits.values():
        split.arrays["audio"][:, :, 1] = 2.0
        split.labels[:] = 0
    splits["train"].labels[0] = 1
    rng = np.random.default_rng(0)
    for name, split in splits.items():
        video = np.zeros((12, 60, 1), "float32")
        video[:, -2:] = rng.normal(size=(12, 2, 1))
        splits[name] = replace(split, arrays={**split.arrays, "video": video})
    for modality, array in splits["test"].arrays.items():
        array[4] = splits["train"].arrays[modality][7]
    return splits


def test_inspect_tells_what_is_odd(tmp_path: Path) -> None:
    write_dataset(tmp_path / "odd.h5", _odd_splits(), **FACTS)
    with open_dataset(tmp_path / "odd.h5") as (info, splits):
        oddities = find_oddities(info, splits)
    assert oddities == [
        "train has no sample of maybe",
        "valid has no sample of yes, maybe",
        "test has no sample of yes, maybe",
        "video is padding for 97% of its steps in train",
        "audio has 1 of 2 features constant over train",
        "train and test share 1 identical samples, train-7 and test-4 for one",
    ]


def test_inspect_tells_the_groups_and_which_are_in_several_splits(tmp_path: Path) -> None:
    groups = {"train": ["a"] * 5 + ["b"] * 7, "valid": ["c"] * 12, "test": ["b"] * 2 + ["d"] * 10}
    write_dataset(tmp_path / "g.h5", {n: replace(s, groups=groups[n]) for n, s in make_splits().items()}, **FACTS)
    account = _run("inspect", tmp_path / "g.h5").stdout
    assert "groups       train 2, valid 1, test 2" in account
    assert [line.split() for line in account.splitlines() if line.startswith(("a ", "b ", "c ", "d "))] == [
        ["a", "5", "-", "-"],
        ["b", "7", "-", "2"],
        ["c", "-", "12", "-"],
        ["d", "-", "-", "10"],
    ]
    assert "1 group in several splits, b in train and test for one" in account


def test_inspect_summarises_many_groups(tmp_path: Path) -> None:
    splits = make_splits(samples=40)
    many = {n: replace(s, groups=[f"{n} {max(i - 9, 0)}" for i in range(40)]) for n, s in splits.items()}
    write_dataset(tmp_path / "g.h5", many, **FACTS)
    account = _run("inspect", tmp_path / "g.h5").stdout
    assert "groups       train 31, valid 31, test 31" in account
    for line in ("smallest", "1"), ("median", "1"), ("largest", "10"):
        assert [line[0], *line[1:] * 3] in [found.split() for found in account.splitlines()]


def test_inspect_tells_of_extreme_values_and_imbalance(tmp_path: Path) -> None:
    splits = make_splits(samples=2000)
    splits["train"].arrays["video"][0, 5, 2] = 1e5
    splits["train"].labels[:] = 0
    splits["train"].labels[:3] = [1, 1, 2]
    write_dataset(tmp_path / "odd.h5", splits, **FACTS)
    with open_dataset(tmp_path / "odd.h5") as (info, views):
        oddities = find_oddities(info, views)
    assert oddities[0] == "classes are imbalanced: train has 1997 samples of no, 1 of maybe"
    assert "video has extreme values: 1 of its features" in oddities[1]
    assert len(oddities) == 2


def test_inspect_finds_samples_that_the_students_modality_alone_shares(tmp_path: Path) -> None:
    splits = make_splits()
    splits["test"].arrays["audio"][[2, 5]] = splits["train"].arrays["audio"][[4, 8]]
    write_dataset(tmp_path / "d.h5", splits, **FACTS)
    with open_dataset(tmp_path / "d.h5") as (info, views):
        oddities = find_oddities(info, views)
    assert [line for line in oddities if "identical" in line] == [
        "train and test share 2 samples of identical audio, train-4 and test-2 for one"
    ]


def test_a_modality_that_samples_lack_is_no_duplicate(tmp_path: Path) -> None:
    splits = make_splits()
    for split in splits.values():
        split.arrays["audio"][3] = 0
    write_dataset(tmp_path / "d.h5", splits, **FACTS)
    with open_dataset(tmp_path / "d.h5") as (info, views):
        assert not [line for line in find_oddities(info, views) if "identical" in line]


def test_inspect_counts_padded_steps_and_real_ones_that_are_zero(tmp_path: Path) -> None:
    splits = make_splits()
    for split in splits.values():
        split.arrays["audio"][:] = 1
        split.arrays["audio"][:, 4] = 0  # inside: data
        split.arrays["audio"][:6, :3] = 0  # leading: padding
        split.arrays["audio"][:, -1] = 0
    with pytest.raises(UserError, match="36 of 36 samples end in all-zero steps and 18 begin with them"):
        write_dataset(tmp_path / "d.h5", splits, **FACTS)
    write_dataset(tmp_path / "d.h5", splits, padding="front", **FACTS)
    account = _run("inspect", tmp_path / "d.h5").stdout
    (line,) = [line.split() for line in account.splitlines() if line.startswith("audio ")]
    assert line == ["audio", "9", "2", "float16", "6", "7.5", "9", "72", "54", "-"]
    assert "audio ends in all-zero steps in 36 of 36 samples: they are data here" in account
