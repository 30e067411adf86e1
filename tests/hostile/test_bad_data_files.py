"""Whatever a data file, archive, pickle or array holds: it is refused in a line, runs nothing and writes nothing."""

from __future__ import annotations

import io
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from refusals import Refusals

from mmkd import predict
from mmkd.data import Split, write_dataset
from mmkd.data.__main__ import main
from mmkd.stored_text import fixed, fixed_column


def write_small(path: Path) -> Path:
    splits = {}
    for name in ("train", "valid", "test"):
        arrays = {"video": np.ones((4, 3, 2), "f4"), "audio": np.ones((4, 2, 2), "f2")}
        splits[name] = Split(arrays=arrays, labels=np.arange(4) % 2, groups=[name] * 4)
    write_dataset(path, splits, classes=["a", "b"], source="synthetic (tests)", license="none")
    return path


def replaced(file: h5py.File, name: str, value: Any, **how: Any) -> None:
    attributes = dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, data=value, **how)
    file[name].attrs.update(attributes)


def elsewhere(file: h5py.File, kind: str) -> None:
    """`train/labels`, or a group, from another file."""
    secret = Path(file.filename).with_name("secret")
    secret.write_bytes(np.zeros(4, np.int64).tobytes())
    other = write_small(Path(file.filename).with_name("other.h5"))
    if kind == "group":
        del file["train"]
        file["train"] = h5py.ExternalLink(other, "/train")
        return
    del file["train/labels"]
    if kind == "link":
        file["train/labels"] = h5py.ExternalLink(other, "/train/labels")
    elif kind == "raw":
        file.create_dataset("train/labels", (4,), np.int64, external=[(str(secret), 0, 32)])
    else:
        layout = h5py.VirtualLayout((4,), np.int64)
        layout[:] = h5py.VirtualSource(other, "train/labels", (4,))
        file.create_virtual_dataset("train/labels", layout)


def endless(file: h5py.File) -> None:
    """An array of a petabyte, of which not a byte is stored."""
    attributes = dict(file["train/arrays/video"].attrs)
    del file["train/arrays/video"]
    made = file.create_dataset("train/arrays/video", (4, 2**40, 2), "f4", chunks=(1, 1024, 2))
    made.attrs.update(attributes)


SPOILT: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "of a newer version": (
        lambda f: f.attrs.update(mmkd_layout=99),
        "layout version 99, this mmkd reads version 2; update",
    ),
    "of an older version": (lambda f: f.attrs.update(mmkd_layout=1), "reads version 2; import the data again"),
    "text of variable length": (lambda f: f.attrs.update(notes="x"), "attribute notes: text of variable length"),
    "ids of variable length": (lambda f: replaced(f, "test/ids", list("abcd")), "test/ids: text of variable length"),
    "groups of variable length": (
        lambda f: replaced(f, "test/groups", list("abcd")),
        "test/groups: text of variable length",
    ),
    "groups that are numbers": (lambda f: replaced(f, "test/groups", np.arange(4)), "damaged or incomplete"),
    "groups of three samples": (lambda f: replaced(f, "test/groups", f["test/groups"][:3]), "labels, but 3 groups"),
    "groups of two splits": (lambda f: f.__delitem__("test/groups"), "'test' has no groups, unlike train"),
    "of version x": (lambda f: f.attrs.update(mmkd_layout="x"), "damaged or incomplete"),
    "of two versions": (lambda f: f.attrs.update(mmkd_layout=[1, 1]), "damaged or incomplete"),
    "without a split": (lambda f: f.__delitem__("valid"), "damaged or incomplete .*valid"),
    "a split that is an array": (lambda f: (f.__delitem__("valid"), f.__setitem__("valid", 1)), "damaged"),
    "an empty split": (lambda f: replaced(f, "valid/labels", np.zeros(0, int)), "split 'valid'"),
    "labels out of range": (lambda f: replaced(f, "test/labels", np.full(4, 9)), "'test-0': label 9 is not in 0..1"),
    "labels below 0": (lambda f: replaced(f, "test/labels", np.full(4, -1)), "label -1 is not in 0..1"),
    "labels of float": (lambda f: replaced(f, "test/labels", np.zeros(4)), "labels are float64"),
    "labels in two columns": (
        lambda f: replaced(f, "test/labels", np.zeros((4, 2), int)),
        r"labels are int64 \(4, 2\)",
    ),
    "labels that are a text": (lambda f: replaced(f, "test/labels", "text"), "damaged"),
    "too few labels": (lambda f: replaced(f, "test/labels", np.zeros(3, int)), "split 'test' has 3 labels, but 4 ids"),
    "no data at all": (lambda f: replaced(f, "test/labels", h5py.Empty("i8")), "damaged"),
    "arrays of float64": (lambda f: replaced(f, "test/arrays/audio", np.ones((4, 2, 2))), "'audio': dtype is float64"),
    "arrays of integers": (lambda f: replaced(f, "test/arrays/audio", np.ones((4, 2, 2), int)), "dtype is int64"),
    "arrays of another shape": (lambda f: replaced(f, "test/arrays/audio", np.ones((4, 5, 2), "f2")), "but train has"),
    "a missing array": (lambda f: f.__delitem__("test/arrays/audio"), "split 'test' has the modalities video"),
    "a group in an array's place": (
        lambda f: (f.__delitem__("test/arrays/audio"), f.create_group("test/arrays/audio")),
        "damaged",
    ),
    "NaN": (lambda f: f["test/arrays/audio"].__setitem__((2, 1, 0), np.nan), "'audio', sample 'test-2': holds NaN"),
    "infinity": (lambda f: f["test/arrays/video"].__setitem__((0, 0, 0), np.inf), "sample 'test-0': holds NaN or inf"),
    "a length of 0": (lambda f: replaced(f, "test/lengths/audio", np.zeros(4, int)), "length 0 is not in 1..2"),
    "a length too long": (lambda f: replaced(f, "test/lengths/audio", np.full(4, 9)), "length 9 is not in 1..2"),
    "an id twice": (lambda f: replaced(f, "test/ids", fixed_column(["x"] * 4)), "sample id 'x' occurs in"),
    "an id that steers": (
        lambda f: replaced(f, "test/ids", fixed_column([*list("abc"), "\x1b[2J"])),
        "is not a printable text",
    ),
    "ids that are numbers": (lambda f: replaced(f, "test/ids", np.arange(4)), "damaged"),
    "no mean": (lambda f: f["train/arrays/audio"].attrs.__delitem__("mean"), "damaged"),
    "a mean of another shape": (lambda f: f["train/arrays/audio"].attrs.update(mean=[0.0]), "no mean and standard"),
    "a mean that is NaN": (lambda f: f["train/arrays/audio"].attrs.update(mean=[0.0, np.nan]), "no mean and standard"),
    "a deviation of 0": (lambda f: f["train/arrays/audio"].attrs.update(std=[0.0, 1.0]), "no mean and standard"),
    "one class": (lambda f: f.attrs.update(classes=fixed('["a"]')), "give two or more names"),
    "classes that are numbers": (
        lambda f: f.attrs.update(classes=fixed("[1, 2]")),
        "class name 1: one line of printable",
    ),
    "a class that steers": (lambda f: f.attrs.update(classes=fixed('["a", "\\u001b[31m"]')), "one line of printable"),
    "classes that are no JSON": (lambda f: f.attrs.update(classes=fixed("[")), "damaged"),
    "classes in classes": (lambda f: f.attrs.update(classes=fixed("[" * 100_000)), "damaged"),
    "a modality that is a path": (
        lambda f: f.attrs.update(modalities=fixed('["../../x", "video"]')),
        "modality name '../../x'",
    ),
    "a modality for a shell": (lambda f: f.attrs.update(modalities=fixed('["$(x)", "video"]')), "modality name"),
    "a modality of two lines": (lambda f: f.attrs.update(modalities=fixed('["a\\nb", "video"]')), "modality name"),
    "a modality of 300 letters": (lambda f: f.attrs.update(modalities=fixed(f'["{"x" * 300}"]')), "modality name 'xxx"),
    "vectors of half a feature": (lambda f: f.attrs.update(vectors=fixed('{"video": 0.5}')), "are not vectors of 0.5"),
    "a score's range backwards": (
        lambda f: f.attrs.update(label_kind=fixed('"score"'), score_range=fixed("[1, 0]")),
        "give the score of the first class",
    ),
    "labels in another file": (lambda f: elsewhere(f, "link"), "are in another file"),
    "a split in another file": (lambda f: elsewhere(f, "group"), "are in another file"),
    "labels out of any file": (lambda f: elsewhere(f, "raw"), "are in another file"),
    "virtual labels": (lambda f: elsewhere(f, "virtual"), "are in another file"),
    "a petabyte of nothing": (endless, "of which 0 are stored"),
    "zeros packed a millionfold": (
        lambda f: replaced(f, "train/labels", np.zeros(2**22, int), compression="gzip", chunks=(2**22,)),
        "labels, but|values, of which",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_data_file_is_refused(refuses: Refusals, case: str) -> None:
    spoil, said = SPOILT[case]
    path = write_small(refuses.folder / "small.h5")
    with h5py.File(path, "a") as file:
        spoil(file)
    refuses.of(main, "inspect", path, said=rf"small\.h5: .*({said})")


def test_facts_of_a_data_file_do_not_reach_the_terminal_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_small(tmp_path / "small.h5")
    with h5py.File(path, "a") as file:
        file.attrs.update(source=fixed("\x1b[2Jgone [red]\nx"), license=fixed("\x9b31m"), notes=fixed("\u202egnp.exe"))
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "\\u001b[2Jgone [red]; x" in shown
    assert not {"\x1b", "\x9b", "\u202e"} & set(shown)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
def test_a_data_file_that_is_cut_short_is_refused(refuses: Refusals, share: float) -> None:
    path = write_small(refuses.folder / "small.h5")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refuses.of(main, "inspect", path, said=r"small\.h5: .*(not an HDF5|truncated|damaged|cannot be read)")


class Call:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


def mult(**change: Any) -> dict[str, Any]:
    part = {
        "vision": np.ones((2, 3, 35)), "audio": np.ones((2, 3, 74)), "text": np.ones((2, 3, 300)),
        "labels": np.zeros((2, 1, 1)),
    }  # fmt: skip
    return {"train": {**part, **change}, "valid": dict(part), "test": dict(part)}


HASH_BOMB = b"".join([b"(", b"I1\nI2\nt", b"p0\n0", *[b"(g0\ng0\ntp0\n0"] * 60, b"g0\n."])
PICKLES: dict[str, tuple[bytes, str]] = {
    "a call": (pickle.dumps(mult(vision=Call(os.system, "touch ran"))), "refused, it asks for .*system"),
    "a call in a list": (pickle.dumps([Call(eval, "open('ran', 'w')")]), "refused, it asks for builtins.eval"),
    "cut short": (pickle.dumps(mult())[:-100], "not a readable pickle"),
    "empty": (b"", "not a readable pickle"),
    "a text": (b"a text", "not a readable pickle"),
    "a list": (pickle.dumps([1]), "holds a list, not a dict of train, valid and test"),
    "without test": (pickle.dumps({k: v for k, v in mult().items() if k != "test"}), "split 'test' is missing"),
    "without audio": (pickle.dumps(mult(audio=None)), "'audio' is missing; it has labels, text, vision"),
    "labels that are texts": (pickle.dumps(mult(labels=np.array(["a", "b"]))), "'labels' is no array of numbers"),
    "labels of another size": (pickle.dumps(mult(labels=np.zeros((2, 3)))), r"'labels' have the shape \(2, 3\)"),
    "a label that is NaN": (pickle.dumps(mult(labels=np.array([0.0, np.nan]))), r"sample \S+: label is NaN"),
    "features that are NaN": (pickle.dumps(mult(vision=np.full((2, 3, 35), np.nan))), "'video'.*holds NaN"),
    "too few rows": (pickle.dumps(mult(vision=np.ones((1, 3, 35)))), r"shape is \(1, 3, 35\)"),
    "no steps": (pickle.dumps(mult(vision=np.ones((2, 0, 35)))), r"shape is \(2, 0, 35\)"),
    "labels without samples": (pickle.dumps(mult(labels=np.zeros((0, 1, 1)))), "split 'train'"),
    "ids for others": (pickle.dumps(mult(id=["a", "b", "c"])), "'id' does not hold one id for each"),
    "ids without columns": (pickle.dumps(mult(id=np.zeros((2, 0), "S4"))), "'id' has no columns"),
    "an id that steers": (pickle.dumps(mult(id=["a", "\x1b[2J"])), "is not a printable text"),
    "a memo of 16 GB": (b"\x80\x02Nr\xff\xff\xff\x7f.", "not a readable pickle .MemoryError"),
    "a frame of an exabyte": (b"\x80\x04\x95" + b"\xff" * 7 + b"\x0fN.", "not a readable pickle"),
    "16 GB of bytes": (b"\x80\x05\x96" + struct.pack("<Q", 2**34) + b"x.", "not a readable pickle"),
    "an array of 8 TB": (b"\x80\x05\x8e" + struct.pack("<Q", 2**43) + b"x.", "not a readable pickle"),
    "lists in lists": (b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".", "holds a list"),
    "tuples that double": (HASH_BOMB, "holds a tuple"),
}


@pytest.mark.parametrize("case", PICKLES)
def test_a_pickle_that_is_not_mults_is_refused(refuses: Refusals, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(refuses.folder)
    content, said = PICKLES[case]
    (refuses.folder / "data.pkl").write_bytes(content)
    refuses.of(main, "import", "mosei", "data.pkl", "out.h5", said=r"data\.pkl|out\.h5 not written")
    refuses.of(main, "import", "mosei", "data.pkl", "out.h5", said=said)


def recording(kind: str, value: Any = None) -> bytes:
    rng, made = np.random.default_rng(0), io.BytesIO()
    given = {"inertial": ("d_iner", rng.normal(size=(9, 6))), "skeleton": ("d_skel", rng.normal(size=(20, 3, 9)))}[kind]
    scipy.io.savemat(made, {given[0]: given[1] if value is None else value})
    return made.getvalue()


INERTIAL, SKELETON = recording("inertial"), recording("skeleton")


def tar_of(files: dict[str, bytes], *special: tarfile.TarInfo, mode: str = "w:xz") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for entry in special:
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def negative() -> bytes:
    """A member of -512 bytes: Python's tarfile goes back and reads it again, for ever."""
    entry = tarfile.TarInfo("a1_s1_t1_inertial.mat")
    head = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\xff" + (-1024).to_bytes(11, "big", signed=True)
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:512]))
    return bytes(head) + bytes(1024)


def zip_of(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


PAIR = {"a1_s1_t1_inertial.mat": INERTIAL, "a1_s1_t1_skeleton.mat": SKELETON}
ARCHIVES: dict[str, tuple[bytes, str]] = {
    "a text": (b"a text", "not a whole tar or zip archive"),
    "an xz that is cut short": (tar_of(PAIR)[:-200], "not a whole tar or zip archive"),
    "an xz with a flipped bit": (
        bytes(b ^ (n == 150) for n, b in enumerate(tar_of(PAIR))),
        "not a whole|not a readable",
    ),
    "an xz of nothing": (lzma.compress(b""), "no file like Inertial|not a whole"),
    "a zip that is cut short": (zip_of(PAIR)[:-30], "not a whole tar or zip archive"),
    "other files": (tar_of({"readme.txt": b"hello"}), "no file like Inertial/a1_s1_t1_inertial.mat"),
    "one of two files": (tar_of({"a1_s1_t1_inertial.mat": INERTIAL}), "a1_s1_t1_skeleton.mat is missing"),
    "one subject": (tar_of(PAIR), "no recording of subject 7, so 'valid' is empty"),
    "an unknown subject": (tar_of({"a1_s9_t1_inertial.mat": INERTIAL}), "subjects 1 to 8; remove the file"),
    "a recording twice": (tar_of({**PAIR, "x/a1_s1_t1_inertial.mat": INERTIAL}), "are the same recording; keep one"),
    "out of the folder": (tar_of({f"../../{name}": content for name, content in PAIR.items()}), "'valid' is empty"),
    "at an absolute path": (tar_of({f"/tmp/{name}": content for name, content in PAIR.items()}), "'valid' is empty"),
    "a link to a secret": (
        tar_of({}, link("a1_s1_t1_inertial.mat", "/etc/passwd", tarfile.SYMTYPE)),
        "no file like Inertial",
    ),
    "a hard link": (tar_of({}, link("a1_s1_t1_inertial.mat", "/etc/passwd", tarfile.LNKTYPE)), "no file like Inertial"),
    "a device": (tar_of({}, link("a1_s1_t1_inertial.mat", "", tarfile.CHRTYPE)), "no file like Inertial"),
    "less than nothing": (negative(), "not a whole tar or zip archive .*-1024 bytes"),
    "17 MB of zeros": (zip_of({"a1_s1_t1_inertial.mat": bytes(17 * 2**20)}), "no file like Inertial"),
    "no MATLAB": (tar_of({**PAIR, "a1_s1_t1_inertial.mat": b"text"}), "not a readable MATLAB file"),
    "MATLAB cut short": (
        tar_of({**PAIR, "a1_s1_t1_inertial.mat": INERTIAL[:-80]}),
        "not a readable MATLAB file|is float",
    ),
    "another variable": (tar_of({**PAIR, "a1_s1_t1_inertial.mat": SKELETON}), "has no variable 'd_iner'"),
    "another shape": (
        tar_of({**PAIR, "a1_s1_t1_inertial.mat": recording("inertial", np.ones((9, 5)))}),
        r"'d_iner' is \w+ \(9, 5\), not numbers",
    ),
    "NaN": (
        tar_of({**PAIR, "a1_s1_t1_inertial.mat": recording("inertial", np.full((9, 6), np.nan))}),
        "'d_iner' holds NaN or infinity",
    ),
    "a flat body": (
        tar_of({**PAIR, "a1_s1_t1_skeleton.mat": recording("skeleton", np.zeros((20, 3, 9)))}),
        "torso or hip line has no length",
    ),
    "texts": (
        tar_of({**PAIR, "a1_s1_t1_inertial.mat": recording("inertial", np.array(["a", "b"]))}),
        "'d_iner' is <U1",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_that_is_not_utd_mhads_is_refused(refuses: Refusals, case: str) -> None:
    content, said = ARCHIVES[case]
    path = refuses.folder / "inner" / "archive"
    path.parent.mkdir()
    path.write_bytes(content)
    refuses.of(main, "import", "utd-mhad", path, refuses.folder / "out.h5", said=rf"archive: .*({said})")


def npy(header: bytes, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def saved(array: Any, save: Callable[..., None] = np.save) -> bytes:
    made = io.BytesIO()
    save(made, array)
    return made.getvalue()


ARRAYS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a readable .npy file"),
    "a text": (b"a text", "not a readable .npy file"),
    "a pickle": (pickle.dumps([Call(os.system, "touch ran")]), "not a readable .npy file"),
    "pickled objects": (saved(np.array([Call(os.system, "touch ran")])), "not a readable .npy file"),
    "an npz": (saved(np.ones((2, 8, 6)), np.savez), "not a readable .npy file"),
    "cut short": (saved(np.ones((2, 8, 6)))[:-9], "not a readable .npy file"),
    "more than there is": (
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999, 8, 6)}\n"),
        "not a readable",
    ),
    "less than nothing": (npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 8, 6)}\n", bytes(99)), "not a"),
    "a header that calls": (npy(b"__import__('os').system('touch ran')\n"), "not a readable .npy file"),
    "brackets in brackets": (npy(b"(" * 60_000), "not a readable .npy file"),
    "two axes": (saved(np.ones((8, 6))), r"float64 of shape \(8, 6\), not numbers in .samples, steps, features"),
    "texts": (saved(np.array([[["a"]]])), "<U1 .*not numbers"),
    "complex numbers": (saved(np.ones((2, 8, 6), complex)), "complex128 .*not numbers"),
    "other steps": (saved(np.ones((2, 9, 6))), "sequences of 9 steps and 6 features, but the student takes 8 and 6"),
    "no samples": (saved(np.ones((0, 8, 6))), "holds no sample|not a readable"),
    "beyond float32": (saved(np.full((2, 8, 6), 1e300)), "sample 0 holds NaN or infinity"),
}


def test_an_array_that_the_student_cannot_take_is_refused(
    refuses: Refusals, monkeypatch: pytest.MonkeyPatch, lab: Any
) -> None:
    student = lab.run(lab.student(training={"epochs": 1})).path
    monkeypatch.chdir(refuses.folder)
    for name, (content, said) in ARRAYS.items():
        Path("new.npy").write_bytes(content)
        out = ["--out", "out.csv"]
        assert refuses.of(predict.main, "--trial", student, "--data", "new.npy", *out, said=rf"new\.npy: .*{said}"), (
            name
        )
