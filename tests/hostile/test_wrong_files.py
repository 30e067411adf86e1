"""A file that is given to the wrong command is identified, with what reads it; nothing is written."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from refusals import Refusals

from mmkd.data.__main__ import main


def _torch(path: Path) -> None:
    torch.save({"x": torch.ones(2)}, path)


def _torch_legacy(path: Path) -> None:
    torch.save({"x": torch.ones(2)}, path, _use_new_zipfile_serialization=False)


def _csd(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["COVAREP/data/video1/features"] = np.ones((3, 2))
        file["COVAREP/data/video1/intervals"] = np.ones((3, 2))
        file["COVAREP/metadata/name"] = "COVAREP"


def _hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = np.ones(3)


def _matlab_73(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["d_iner"] = np.ones((6, 9))
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128))


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("readme"), io.BytesIO())


def _zip(path: Path, name: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"x")


def _with(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "model.pt": (_torch, "a PyTorch file: convert it with the lines in docs/adding-data.md under 'PyTorch'"),
    "old.pth": (_torch_legacy, "a PyTorch file: convert it"),
    "COVAREP.csd": (_csd, r"CMU-MultimodalSDK \(\.csd\): convert it with the lines .* 'CMU-MultimodalSDK'"),
    "features.hdf5": (_hdf5, "an HDF5 file of another layout: write its arrays"),
    "arrays.npz": (lambda p: np.savez(p, x=np.ones(3), y=np.ones(2)), r"arrays of numpy \(\.npz: x, y\): write them"),
    "array.npy": (lambda p: np.save(p, np.ones((2, 3, 4))), r"one numpy array \(\.npy\): write it"),
    "table.csv": (_with(b"id,label\na,b\n"), r"a table of text \(\.csv\): `mmkd data import arrays"),
    "Motions_TRAIN.tsv": (_with(b"a\tb\n1\t2\n"), r"a table of text"),
    "Motions.txt": (_with(b"#x\n@problemName Motions\n@data\n1:a\n"), r"a UEA series \(\.ts\): `mmkd data import uea"),
    "Motions.arff": (_with(b"@relation Motions\n@data\n"), "an ARFF file: use the .ts files"),
    "data.json": (_with(b'{"a": 1}'), "a JSON file: write its arrays"),
    "old.mat": (lambda p: scipy.io.savemat(p, {"x": np.ones(3)}), "a MATLAB file: convert it .* 'MATLAB'"),
    "new.mat": (_matlab_73, r"a MATLAB file of version 7\.3 \(HDF5\): save it again .*'-v7'"),
    "archive.zip": (lambda p: _zip(p, "readme"), "a zip archive: unpack it first"),
    "archive.tar": (_tar, "a tar archive: unpack it first"),
    "data.pkl.gz": (lambda p: p.write_bytes(gzip.compress(b"x")), "a gzip archive: unpack it first"),
    "data.7z": (_with(b"7z\xbc\xaf\x27\x1c"), "a 7z archive: unpack it first"),
    "data.parquet": (_with(b"PAR1....PAR1"), "a Parquet table: write one file for each sample"),
    "sound.wav": (
        _with(b"RIFF\0\0\0\0WAVEfmt "),
        "a recording .wav or avi.: mmkd takes features, so extract them first",
    ),
    "film.mp4": (_with(b"\0\0\0\x18ftypmp42"), "a recording .mp4.: mmkd takes features"),
    "page.html": (
        _with(b"<!DOCTYPE html><html>"),
        "a web page, perhaps of a download that failed: fetch the file again",
    ),
    "pointer": (_with(b"version https://git-lfs.github.com/spec/v1\n"), "a pointer of Git LFS.*run git lfs pull"),
    "empty": (_with(b""), "an empty file: fetch it again|not a readable pickle"),
}

COMMANDS: dict[str, list[str]] = {
    "mult": ["import", "mult", "FILE", "out.h5", "--dataset", "mosei"],
    "mmsa": ["import", "mmsa", "FILE", "out.h5", "--dataset", "sims"],
    "uea": ["import", "uea", "FILE", "out.h5", "--modalities", "a=0"],
    "arrays": ["import", "arrays", "FILE", "out.h5"],
    "inspect": ["inspect", "FILE"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_identified(
    refuses: Refusals, monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    monkeypatch.chdir(refuses.folder)
    make, said = FILES[name]
    with (refuses.folder / name).open("wb"):
        pass
    make(refuses.folder / name)
    refuses.of(main, *(name if word == "FILE" else word for word in COMMANDS[command]), said=said)


PICKLE = pickle.dumps({"train": {}, "valid": {}, "test": {}})


@pytest.mark.parametrize("command", ["uea", "arrays", "inspect"])
def test_a_pickle_is_sent_to_the_importers_of_pickles(
    refuses: Refusals, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(refuses.folder)
    (refuses.folder / "x.pkl").write_bytes(PICKLE)
    said = "it is a pickle: `mmkd data import mult`, `mmsa` or `multibench`"
    refuses.of(main, *("x.pkl" if word == "FILE" else word for word in COMMANDS[command]), said=said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: pickle.dumps({"train": torch.ones(2)}), r"asks for torch\..*; convert its tensors with \.numpy\(\)"),
        (
            lambda: pickle.dumps({"train": __import__("pandas").DataFrame({"a": [1]})}),
            r"convert its tables with \.to_numpy",
        ),
    ],
)
def test_a_pickle_of_another_package_is_refused_with_the_converting_line(
    refuses: Refusals, monkeypatch: pytest.MonkeyPatch, content: Callable[[], bytes], said: str
) -> None:
    monkeypatch.chdir(refuses.folder)
    (refuses.folder / "x.pkl").write_bytes(content())
    refuses.of(main, "import", "mult", "x.pkl", "out.h5", "--dataset", "mosei", said=said)


@pytest.mark.parametrize("make", [lambda p: _zip(p, "readme"), _matlab_73, lambda p: p.write_bytes(PICKLE)])
def test_utd_mhad_identifies_other_files(
    refuses: Refusals, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
) -> None:
    monkeypatch.chdir(refuses.folder)
    make(refuses.folder / "x.zip")
    refuses.of(main, "import", "utd-mhad", "x.zip", "out.h5", said="it is a (zip archive|MATLAB file|pickle)")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["uea", "x", "out.h5"], "required: --modalities"),
        (["uea", "x", "out.h5", "--modalities", "a"], "'a' in 'a': give NAME=FIRST-LAST"),
        (["uea", "x", "out.h5", "--modalities", "a=3-1"], "the last dimension is before the first"),
        (["uea", "x", "out.h5", "--modalities", "a=0-2,b=2"], "dimension 2 in 'a=0-2,b=2' is in a and in b"),
        (["arrays", "x", "out.h5", "--scores", "1,5"], "give FIRST,LAST,CLASSES, such as --scores=1,5,5"),
        (["arrays", "x", "out.h5", "--scores", "5,1,5"], "LAST must be above FIRST"),
        (["arrays", "x", "out.h5", "--padding", "left"], "invalid choice: 'left'"),
        (["mult", "x", "out.h5"], "required: --dataset"),
        (["mult", "x", "out.h5", "--dataset", "mosey"], "did you mean mosei"),
        (["mult", "x", "out.h5", "--dataset", "mosi", "--replace-inf", "nan"], "'nan' is not a finite number"),
        (["mult", "x", "out.h5", "--dataset", "iemocap"], r"choose one with --emotion \(neutral, happy, sad, angry\)"),
        (["mosei", "x", "out.h5", "--dataset", "mosei"], "unrecognized arguments: --dataset"),
        (["arrays", "gone", "out.h5"], "gone: not a folder of recordings; name a folder"),
        (["uea", "gone", "out.h5", "--modalities", "a=0"], "gone: no such file or directory"),
        (["mmsa", "gone", "out.h5", "--dataset", "sims"], "gone: cannot be read"),
    ],
)
def test_options_that_are_wrong_are_refused(
    refuses: Refusals, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(refuses.folder)
    refuses.of(main, "import", *arguments, said=said)
