"""Identify a file that was given to a command which does not read it, and name what does."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import h5py

LINES = "the lines in docs/adding-data.md under"
PICKLES = "`mmkd data import mult`, `mmsa` or `multibench`"
ARRAYS = "`mmkd data import arrays FOLDER OUT.h5`: one folder for each modality, with one file for each sample"
EXTRACT = "mmkd takes features, so extract them first (openSMILE, OpenFace, wav2vec, ...); then " + ARRAYS

_TORCH_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_HEADS: list[tuple[bytes, str, str]] = [
    (b"MATLAB 7.3", "a MATLAB file of version 7.3 (HDF5)", "save it again in MATLAB with save(FILE, '-v7')"),
    (
        b"MATLAB 5.0",
        "a MATLAB file",
        f"convert it with {LINES} 'MATLAB'; UTD-MHAD's folder: `mmkd data import utd-mhad`",
    ),
    (b"\x93NUMPY", "one numpy array (.npy)", f"write it with {LINES} 'Arrays in Python', or use {ARRAYS}"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"BZh", "a bzip2 archive", "unpack it first"),
    (b"\xfd7zXZ", "an xz archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"Rar!", "a rar archive", "unpack it first"),
    (b"PAR1", "a Parquet table", f"write one file for each sample, then {ARRAYS}"),
    (b"RIFF", "a recording (wav or avi)", EXTRACT),
    (b"ID3", "a recording (mp3)", EXTRACT),
    (b"fLaC", "a recording (flac)", EXTRACT),
    (b"OggS", "a recording (ogg)", EXTRACT),
    (b"\x89PNG", "an image", EXTRACT),
    (b"\xff\xd8\xff", "an image", EXTRACT),
    (b"%PDF", "a PDF", "give the data themselves"),
    (b"<!DOCTYPE", "a web page, perhaps of a download that failed", "fetch the file again"),
    (b"<html", "a web page, perhaps of a download that failed", "fetch the file again"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "run git lfs pull"),
]


def identify(path: str | Path) -> str:
    """Describe what is at `path` and what to do with it; "" if that is not known. Reads little of it, runs nothing."""
    path = Path(path)
    try:
        if path.is_dir():
            return _sentence(*_folder(path))
        with path.open("rb") as file:
            head = file.read(4096)
        return _sentence(*_file(path, head))
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile):
        return ""


def _sentence(kind: str, remedy: str) -> str:
    return f"it is {kind}: {remedy}" if kind else ""


def _file(path: Path, head: bytes) -> tuple[str, str]:
    if not head:
        return "an empty file", "fetch it again"
    for start, kind, remedy in _HEADS:
        if head.startswith(start):
            return kind, remedy
    if head[4:8] == b"ftyp":
        return "a recording (mp4)", EXTRACT
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it first; UTD-MHAD's may stay packed: `mmkd data import utd-mhad`"
    if h5py.is_hdf5(path):
        return _hdf5(path)
    if head.startswith(b"PK"):
        return _zip(path)
    if _TORCH_LEGACY in head[:64]:
        return "a PyTorch file", f"convert it with {LINES} 'PyTorch'"
    if head[:1] == b"\x80" or re.match(rb"\(d[pq]\d|\(l[pq]\d|c\w+\n\w+\n|\(dp|\(lp", head):
        return "a pickle", PICKLES
    return _text(head)


def _hdf5(path: Path) -> tuple[str, str]:
    with h5py.File(path, "r", locking=False) as file:
        if "mmkd_layout" in file.attrs:
            return "a data file of mmkd", "use it as it is, see `mmkd data inspect FILE`"
        for group in list(file.values())[:1]:
            if isinstance(group, h5py.Group) and "data" in group and "metadata" in group:
                return (
                    "a computational sequence of the CMU-MultimodalSDK (.csd)",
                    f"convert it with {LINES} 'CMU-MultimodalSDK'",
                )
        if "#refs#" in file:
            return "a MATLAB file of version 7.3 (HDF5)", "save it again in MATLAB with save(FILE, '-v7')"
        return "an HDF5 file of another layout", f"write its arrays with {LINES} 'Arrays in Python'"


def _zip(path: Path) -> tuple[str, str]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()[:100_000]
    if any(name.endswith("/data.pkl") for name in names):
        return "a PyTorch file", f"convert it with {LINES} 'PyTorch'"
    if names and all(name.endswith(".npy") for name in names):
        held = ", ".join(name.removesuffix(".npy") for name in names[:6])
        return f"arrays of numpy (.npz: {held})", f"write them with {LINES} 'Arrays in Python', or use {ARRAYS}"
    if any(re.search(r"a\d+_s\d+_t\d+_\w+\.mat$", name) for name in names):
        return "an archive of UTD-MHAD", "`mmkd data import utd-mhad ARCHIVE_OR_DIRECTORY OUT.h5`"
    return "a zip archive", "unpack it first"


def _text(head: bytes) -> tuple[str, str]:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return "", ""
        text = head[: error.start].decode()
    if "\0" in text:
        return "", ""
    lines = [line.strip().lower() for line in text.splitlines() if line.strip()]
    if any(line.startswith("@relation") for line in lines):
        return (
            "an ARFF file",
            "use the .ts files of the same archive: `mmkd data import uea FOLDER_OR_TS OUT.h5 --modalities ...`",
        )
    if any(line.startswith(("@problemname", "@timestamps", "@univariate", "@classlabel")) for line in lines):
        return "a UEA series (.ts)", "`mmkd data import uea FOLDER_OR_TS OUT.h5 --modalities NAME=0-2,NAME=3-5`"
    if lines and lines[0][:1] in "[{":
        return "a JSON file", f"write its arrays with {LINES} 'Arrays in Python'"
    if lines and re.search(r"[,;\t]", lines[0]):
        return "a table of text (.csv)", ARRAYS
    return ("a text file", ARRAYS) if lines else ("", "")


def _folder(path: Path) -> tuple[str, str]:
    names = [entry.name for entry in sorted(path.iterdir())[:10_000]]
    for ending, kind, remedy in (
        (".ts", "a folder of UEA series", "`mmkd data import uea FOLDER OUT.h5 --modalities NAME=0-2,NAME=3-5`"),
        (".csd", "a folder of computational sequences (.csd)", f"convert them with {LINES} 'CMU-MultimodalSDK'"),
        (".pkl", "a folder of pickles", f"name one of them for {PICKLES}"),
    ):
        if any(name.lower().endswith(ending) for name in names):
            return kind, remedy
    if any(re.search(r"_(inertial|skeleton)\.mat$", entry.name) for entry in path.glob("**/*.mat")):
        return "a folder of UTD-MHAD", "`mmkd data import utd-mhad FOLDER OUT.h5`"
    if any(entry.is_dir() for entry in path.iterdir()):
        return "a folder", f"if it holds your own recordings, {ARRAYS}"
    return "", ""
