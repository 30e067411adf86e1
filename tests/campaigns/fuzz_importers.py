"""Targets of `fuzz.py` that import files: pickles of MulT, MultiBench and MMSA, UEA series, folders of recordings."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def fuzz_mult(path: Path, content: bytes) -> None:
    """The importers of MulT's and MultiBench's pickles."""
    from mmkd.data.importers.mult import MULT, MULTIBENCH, import_mult, import_multibench

    path.write_bytes(content)
    for dataset in MULT:
        emotion = "sad" if dataset == "iemocap" else None
        for options in repairs():
            imported(path, lambda p, d=dataset, e=emotion, o=options: import_mult(path, p, d, emotion=e, options=o))
    for dataset in MULTIBENCH:
        imported(path, lambda p, d=dataset: import_multibench(path, p, d))


def fuzz_mmsa(path: Path, content: bytes) -> None:
    """The importer of MMSA's pickles."""
    from mmkd.data.importers.mmsa import MMSA, import_mmsa

    path.write_bytes(content)
    for dataset in MMSA:
        for options in repairs():
            imported(path, lambda p, d=dataset, o=options: import_mmsa(path, p, d, options=o))


def fuzz_uea(path: Path, content: bytes) -> None:
    """The importer of .ts files: the content is the training file."""
    from mmkd.data.importers.uea import import_uea

    folder = path.with_name("series")
    folder.mkdir(exist_ok=True)
    (folder / "X_TRAIN.ts").write_bytes(content)
    (folder / "X_TEST.ts").write_bytes(UEA_SEED)
    for options in repairs():
        imported(path, lambda p, o=options: import_uea(folder, p, {"a": [0], "b": [1]}, options=o))


def fuzz_arrays(path: Path, content: bytes) -> None:
    """The importer of recordings: the first byte chooses what the rest is, a .npy, .npz or .csv file, or the table."""
    from mmkd.data.importers.arrays import import_arrays
    from mmkd.data.importers.label_table import Scores

    folder = path.with_name("recordings")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "a").mkdir(parents=True)
    kind, rest = content[:1], content[1:]
    ending = {b"n": ".npy", b"z": ".npz", b"c": ".csv"}.get(kind, "")
    names = [f"s{n}" for n in range(6)]
    for name in names:
        if name == "s0" and ending:
            (folder / "a" / f"s0{ending}").write_bytes(rest)
        else:
            (folder / "a" / f"{name}.csv").write_text("1,2\n3,4\n5,6\n"[: 8 if name == "s1" else None])
    table = "id,label\n" + "".join(f"{name},{n % 2}\n" for n, name in enumerate(names))
    (folder / "labels.csv").write_bytes(table.encode() if ending else rest)
    for scores in (None, Scores(0, 1, 3)):
        for options in repairs():
            imported(path, lambda p, s=scores, o=options: import_arrays(folder, p, scores=s, options=o))


def repairs() -> Iterator[Any]:
    """An import as it is, and with all repairs."""
    from mmkd.data.importers.importing import Options

    yield Options()
    yield Options(padding="behind", replace_inf=0.0, drop_nan=True)


def imported(path: Path, make: Callable[[Path], object]) -> None:
    """Import; what is written must pass the check, and what is refused must leave nothing."""
    from mmkd.data import check_dataset
    from mmkd.errors import UserError

    out = path.with_name("out.h5")
    try:
        make(out)
    except UserError:
        assert not out.exists()
        return
    check_dataset(out)
    out.unlink()


UEA_SEED = b"""#c
@problemName X
@timeStamps false
@univariate false
@dimensions 2
@equalLength false
@classLabel true a b
@data
1,2,3:4,5,6:a
0,-2.5e3:?,5:b
1,2:3,4:a
NaN,2:3,4:b
1,2:3,4:a
1,2:3,4:b
"""


def mult_parts(**more: Any) -> Iterator[Any]:
    """Small data of MulT's keys; `more` are further keys."""
    import numpy as np

    one_hot = np.eye(2)[np.array([[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1]])]
    for labels in (np.array([-3.0, 0.5, 3.0]).reshape(3, 1, 1), np.array([[0], [1], [1]]), one_hot):
        part = {
            "vision": np.ones((3, 2, 2)), "audio": np.ones((3, 3, 1), "f4"), "text": np.ones((3, 2, 300), "f2"),
            "labels": labels, "id": np.array(["a[1]", "b[1]", "c[1]"]), **more,
        }  # fmt: skip
        part["audio"][0, 0] = 0
        yield {
            name: {**part, "id": np.array([f"{name}{n}[1]" for n in range(3)])} for name in ("train", "valid", "test")
        }


def mult_seeds(path: Path) -> Iterator[bytes]:
    """Small pickles in MulT's layout."""
    import pickle

    for data in mult_parts():
        for protocol in (0, 2, 4):
            yield pickle.dumps(data, protocol)


def mmsa_seeds(path: Path) -> Iterator[bytes]:
    """Small pickles in MMSA's layout."""
    import pickle

    import numpy as np

    more = {"audio_lengths": [3, 2, 1], "vision_lengths": np.array([2, 2, 1]), "raw_text": ["x"] * 3}
    for data in mult_parts(regression_labels=np.array([-1.0, 0.2, 1.0]), **more):
        for protocol in (0, 2, 4):
            yield pickle.dumps(data, protocol)


def uea_seeds(path: Path) -> Iterator[bytes]:
    """A small series."""
    yield UEA_SEED


def arrays_seeds(path: Path) -> Iterator[bytes]:
    """Small recordings of each kind, and tables."""
    import numpy as np

    for array in (np.ones((3, 2)), np.ones((2, 2), "f4"), np.ones(4, "i2"), np.asfortranarray(np.ones((3, 2), ">f8"))):
        made = io.BytesIO()
        np.save(made, array)
        yield b"n" + made.getvalue()
        for save in (np.savez, np.savez_compressed):
            made = io.BytesIO()
            save(made, x=array)
            yield b"z" + made.getvalue()
    yield b"c" + b"x,y\n1,2\n3,-4e5\n"
    yield b"c" + b"\xef\xbb\xbf1;2\n"
    yield b"tid,label,split,group\n" + b"".join(
        b"s%d,%d,%s,g%d\n" % (n, n % 2, (b"train", b"dev", b"test")[n % 3], n) for n in range(6)
    )
    yield b"tfile,class\n" + b"".join(b's%d.csv,"%.2f"\n' % (n, n / 6) for n in range(6))


IMPORTERS: dict[str, tuple[Callable[[Path, bytes], None], Callable[[Path], Iterator[bytes]]]] = {
    "mult": (fuzz_mult, mult_seeds),
    "mmsa": (fuzz_mmsa, mmsa_seeds),
    "uea": (fuzz_uea, uea_seeds),
    "arrays": (fuzz_arrays, arrays_seeds),
}
