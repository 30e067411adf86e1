"""Hostile recordings, series and pickles of MMSA: refused in a line, within bounded memory."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import Refusals

from mmkd.data.__main__ import main

GIB = 2**30


@pytest.fixture
def folder(refuses: Refusals, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recordings of ten samples that can be imported."""
    monkeypatch.chdir(refuses.folder)
    place = refuses.folder / "mine"
    (place / "audio").mkdir(parents=True)
    lines = ["id,label"]
    for n in range(10):
        np.save(place / "audio" / f"s{n}.npy", np.full((3 + n % 2, 2), n + 1.0))
        lines.append(f"s{n},{n % 2}")
    (place / "labels.csv").write_text("\n".join(lines) + "\n")
    return place


def _npy(shape: str, content: bytes = b"", descr: str = "'<f8'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content


def _zip(content: bytes, name: str = "a.npy") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return made.getvalue()


class _Attack:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def _pickled_array() -> bytes:
    made = io.BytesIO()
    np.save(made, np.array([_Attack()], dtype=object), allow_pickle=True)
    return made.getvalue()


RECORDINGS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "an array of a terabyte": ("s3.npy", lambda: _npy(f"({2**37}, 1)"), r"s3\.npy: not readable"),
    "a negative shape": ("s3.npy", lambda: _npy("(-1, 2)"), r"s3\.npy: not readable"),
    "a header that is code": ("s3.npy", lambda: _npy("__import__('os').system('touch ran')"), r"s3\.npy: not readable"),
    "a header of deep brackets": ("s3.npy", lambda: _npy("(" * 90), r"s3\.npy: not readable"),
    "objects": ("s3.npy", _pickled_array, r"s3\.npy: not readable"),
    "a structured array": ("s3.npy", lambda: _npy("(3,)", b"\0" * 48, "[('a', '<f8'), ('b', '<f8')]"), "not numbers"),
    "objects in an archive": ("s3.npz", lambda: _zip(_pickled_array()), r"s3\.npz: not readable"),
    "an archive of 4 GiB of zeros": (
        "s3.npz",
        lambda: _zip(_npy(f"({2**29}, 1)") + b"\0" * 2**20),
        r"s3\.npz: not readable",
    ),
    "an array of a terabyte in an archive": ("s3.npz", lambda: _zip(_npy(f"({2**37}, 1)")), r"s3\.npz: not readable"),
    "a name that leaves the folder": ("s3.npz", lambda: _zip(b"x", "../../s.npy"), r"s3\.npz: its shape is"),
    "a number of a million digits": ("s3.csv", lambda: b"9" * 10**6 + b",1\n", r"s3\.csv|holds NaN or infinity"),
    "a cell of a million letters": ("s3.csv", lambda: b"1,2\nx" + b"y" * 10**6 + b",1\n", r"s3\.csv"),
    "escapes in a cell": ("s3.csv", lambda: b"1,2\n\x1b[2J,1\n", r"s3\.csv: row 2"),
    "zero bytes": ("s3.csv", lambda: b"1,2\n\0\0\n", r"s3\.csv"),
    "no UTF-8": ("s3.csv", lambda: b"\xff\xfe1,2\n", r"s3\.csv: not readable"),
}


@pytest.mark.parametrize("case", RECORDINGS)
def test_a_hostile_recording_is_refused(refuses: Refusals, folder: Path, case: str) -> None:
    name, content, said = RECORDINGS[case]
    (folder / "audio" / "s3.npy").unlink()
    (folder / "audio" / name).write_bytes(content())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refuses.of(main, "import", "arrays", "mine", "out.h5", said=said)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GIB / 1024
    assert not (refuses.folder / "ran").exists()


TABLES = {
    "an id that leaves the folder": ("../../etc/passwd,1", "audio is missing in 1 sample .*passwd"),
    "an id that steers": ("\x1b[2J,1", "audio is missing"),
    "a label that steers": ("s9,\x1b[31m", "class name .*one line of printable"),
    "a label of a million letters": (f"s9,{'x' * 10**6}", r"labels\.csv|class name"),
    "a quote that does not end": ('s9,"1', r"not a CSV file"),
    "zero bytes": ("s9,\0", "labels|class name"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_hostile_table_is_refused(refuses: Refusals, folder: Path, case: str) -> None:
    line, said = TABLES[case]
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace("s9,1", line))
    refuses.of(main, "import", "arrays", "mine", "out.h5", said=said)


SERIES = {
    "a line of 10 MB without a case": ("x" * 10**7, "line 3"),
    "a million empty dimensions": (":" * 10**6 + "a", "line 3"),
    "numbers that are no numbers": ("1,0x10:a", "line 3: could not convert"),
    "infinity": ("inf,1:a", "holds NaN or infinity"),
    "beyond float32": ("1e39,1:a", "does not fit float32"),
    "only missing values": ("?,?:a", "holds NaN or infinity"),
    "a class that steers": ("1,2:\x1b[2J", "class name .*one line of printable"),
    "zero bytes": ("\0:\0", "line 3"),
}


@pytest.mark.parametrize("case", SERIES)
def test_a_hostile_series_is_refused(refuses: Refusals, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(refuses.folder)
    line, said = SERIES[case]
    good = "1,2:a\n3,4:b\n" * 5
    (refuses.folder / "X_TRAIN.ts").write_text("@problemName X\n@data\n" + good)
    (refuses.folder / "X_TEST.ts").write_text("@problemName X\n@data\n" + line + "\n" + good)
    refuses.of(main, "import", "uea", ".", "out.h5", "--modalities", "a=0", said=said)


def _mmsa(**change: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    part = {
        "audio": rng.normal(size=(4, 5, 3)),
        "vision": rng.normal(size=(4, 6, 2)),
        "text": rng.normal(size=(4, 3, 768)),
        "regression_labels": np.array([-3.0, 0, 1, 3]),
        "audio_lengths": [5, 5, 5, 5],
        "id": np.array(["a$_$1", "b$_$1", "c$_$1", "d$_$1"]),
    }
    return {"train": {**part, **change}, "valid": dict(part), "test": dict(part)}


PICKLES: dict[str, tuple[Any, str]] = {
    "code in text that is skipped": (_mmsa(raw_text=[_Attack()]), r"refused, it asks for \w+\.system"),
    "code among tokens": (_mmsa(text_bert=np.array([_Attack()], dtype=object)), r"refused, it asks for \w+\.system"),
    "code among lengths": (_mmsa(audio_lengths=[_Attack()]), r"refused, it asks for \w+\.system"),
    "a length of 2**62": (_mmsa(audio_lengths=[2**62] * 3 + [-1]), "is -1, not a number of steps"),
    "lengths that are texts": (_mmsa(audio_lengths=["a"] * 4), "'audio_lengths' is no array of numbers"),
    "lengths in lists": (_mmsa(audio_lengths=[[1], [2, 3]]), "'audio_lengths' is no array of numbers"),
    "an id that steers": (_mmsa(id=["\x1b[2J"] * 4), "is not a printable text"),
    "ids for others": (_mmsa(id=["a"]), "'id' does not hold one id"),
    "features of lists": (_mmsa(audio=[[[1.0]], [[1.0], [2.0]]]), "holds arrays of 1 to 2 steps"),
    "features that are a class": (_mmsa(audio={"a": 1}), "'audio'"),
    "labels without samples": (_mmsa(regression_labels=np.zeros(0)), "train"),
    "labels of two numbers": (_mmsa(regression_labels=np.zeros((4, 2))), "train"),
    "a key that is a list": ({**_mmsa(), ("a", "b"): 1}, ""),
}


@pytest.mark.parametrize("case", PICKLES)
def test_a_hostile_pickle_of_mmsa_is_refused(refuses: Refusals, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(refuses.folder)
    data, said = PICKLES[case]
    (refuses.folder / "x.pkl").write_bytes(pickle.dumps(data))
    if not said:
        assert main(["import", "mmsa", "x.pkl", "out.h5", "--dataset", "mosi"]) == 0
        return
    refuses.of(main, "import", "mmsa", "x.pkl", "out.h5", "--dataset", "mosi", said=said)
    assert not (refuses.folder / "ran").exists()
