"""Import UTD-MHAD (Chen, Jafari, Kehtarnavaz, ICIP 2015): Kinect skeletons and a wrist- or thigh-worn inertial sensor.

27 actions by 8 subjects, 4 times each; 3 corrupt recordings were removed by the authors, 861 are left.
"""

from __future__ import annotations

import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io

from mmkd.data.dataset import Array, Split
from mmkd.data.hdf5_write import write_dataset
from mmkd.data.identify import identify
from mmkd.data.untrusted import memory_for
from mmkd.errors import UserError

ACTIONS = (
    "swipe left", "swipe right", "wave", "clap", "throw", "arm cross", "basketball shoot", "draw x",
    "draw circle clockwise", "draw circle counter clockwise", "draw triangle", "bowling", "boxing", "baseball swing",
    "tennis swing", "arm curl", "tennis serve", "push", "knock", "catch", "pickup throw", "jog", "walk",
    "sit to stand", "stand to sit", "lunge", "squat",
)  # fmt: skip
STEPS = {"skeleton": 40, "accelerometer": 96, "gyroscope": 96}
TRAIN_SUBJECTS = (1, 3, 5, 7)
TEST_SUBJECTS = (2, 4, 6, 8)

# Joints (20, Kinect for Windows 1): head, shoulder centre, spine, hip centre; left shoulder, elbow, wrist, hand; the
# same on the right; left hip, knee, ankle, foot; the same on the right. Metres; x across, y up, z away from the camera.
SHOULDER_CENTRE, HIP_CENTRE, LEFT_HIP, RIGHT_HIP = 1, 3, 12, 16
REST_FRAMES = 5

_FILE = re.compile(r"(?:^|/)a(\d{1,3})_s(\d{1,3})_t(\d{1,3})_(inertial|skeleton)\.mat$")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_LARGEST_FILE = 16 * 2**20  # bytes; real ones have at most 60 thousand
_LARGEST_SUM = 2**30  # bytes; the real ones' are 31 million
_BROKEN_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError)


class Trial(NamedTuple):
    """Name of one recording: action, subject and repetition."""

    action: int
    subject: int
    repetition: int

    def __str__(self) -> str:
        return f"a{self.action}_s{self.subject}_t{self.repetition}"


def import_utd_mhad(
    source: str | Path,
    out: str | Path,
    *,
    steps: Mapping[str, int] | None = STEPS,
    raw: bool = False,
    valid_subject: int = 7,
) -> str:
    """Write UTD-MHAD to `out` in the HDF5 layout; return the fingerprint.

    The split is the usual cross-subject one: subjects 2, 4, 6, 8 test, the others train, except `valid_subject`. The
    subjects are the groups.

    Args:
        source: directory or archive (tar, zip) with `a{action}_s{subject}_t{trial}_{inertial,skeleton}.mat` at any
            depth, or a directory of such archives. These are read in memory, not unpacked to disk.
        out: the file to write.
        steps: modality -> steps that every recording is resampled to, linearly; None keeps every recording's own
            length, with zeros in front up to the longest.
        raw: keep the camera's coordinates instead of `body_frame`.
        valid_subject: 1, 3, 5 or 7.

    Raises:
        UserError: naming the file that is missing, doubled, unreadable, or not as the authors made it.
        OSError: `out` cannot be written.
    """
    source = Path(source)
    if valid_subject not in TRAIN_SUBJECTS:
        raise UserError(f"valid subject {valid_subject}: choose one of 1, 3, 5, 7 (the others are for the test)")
    recordings = _read_recordings(source, raw)
    if steps is not None:
        recordings = {t: {m: _resample(r[m], steps[m]) for m in STEPS} for t, r in recordings.items()}
    longest = {m: max(len(r[m]) for r in recordings.values()) for m in STEPS}
    subjects = {
        "train": tuple(subject for subject in TRAIN_SUBJECTS if subject != valid_subject),
        "valid": (valid_subject,),
        "test": TEST_SUBJECTS,
    }
    splits = {}
    for name, members in subjects.items():
        chosen = {trial: recordings[trial] for trial in sorted(recordings) if trial.subject in members}
        if not chosen:
            raise UserError(f"{source}: no recording of subject {' or '.join(map(str, members))}, so {name!r} is empty")
        splits[name] = _split(chosen, longest)
    return write_dataset(
        out,
        splits,
        classes=ACTIONS,
        source="UTD-MHAD (Chen, Jafari, Kehtarnavaz, ICIP 2015)",
        license="freely available (the authors' words); cite the paper",
        vectors=dict.fromkeys(STEPS, 3),
        notes=f"cross-subject, subject {valid_subject} for validation; "
        f"{'native lengths, zeros in front' if steps is None else 'resampled linearly'}; "
        f"skeleton in {'camera coordinates' if raw else 'a body frame'}",
    )


def body_frame(skeleton: Array) -> Array:
    """Transform a skeleton from the camera's coordinates to the body's at rest.

    The frame is that of the first frames' mean, the same for the whole recording, so that movement through the room
    stays: origin at the hip centre, x along the hip line from left to right, y up, one torso long.

    Args:
        skeleton: (20, 3, T) in metres.

    Returns:
        (20, 3, T) in torso lengths; not finite where the torso or the hip line has no length.
    """
    rest = skeleton[:, :, :REST_FRAMES].mean(axis=2)
    hips = (rest[RIGHT_HIP] - rest[LEFT_HIP])[[0, 2]]
    with np.errstate(divide="ignore", invalid="ignore"):
        cos, sin = hips / np.linalg.norm(hips)
        turn = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])  # about y, the vertical
        centred = skeleton - rest[HIP_CENTRE][:, None]
        body: Array = np.einsum("ab,jbt->jat", turn, centred) / np.linalg.norm(rest[SHOULDER_CENTRE] - rest[HIP_CENTRE])
    return body


def _split(recordings: Mapping[Trial, Mapping[str, Array]], steps: Mapping[str, int]) -> Split:
    """One split of `recordings`, modality -> (T, F) each, with zeros in front up to `steps`."""
    return Split(
        arrays={m: np.stack([_pad(r[m], steps[m]) for r in recordings.values()]) for m in steps},
        lengths={m: np.array([len(r[m]) for r in recordings.values()]) for m in steps},
        labels=np.array([trial.action - 1 for trial in recordings]),
        ids=[str(trial) for trial in recordings],
        groups=[f"subject {trial.subject}" for trial in recordings],
    )


def _read_recordings(source: Path, raw: bool) -> dict[Trial, dict[str, Array]]:
    """trial -> modality -> (T, F) float32, at native lengths."""
    files: dict[Trial, dict[str, tuple[str, bytes]]] = {}
    total = 0
    for name, content in _mat_files(source):
        total += len(content)
        if total > _LARGEST_SUM:
            raise UserError(f"{source}: more than {_LARGEST_SUM} bytes of recordings; UTD-MHAD has 31 million")
        match = _FILE.search(name)
        if match is None:
            continue
        trial = Trial(*map(int, match.group(1, 2, 3)))
        if not 1 <= trial.action <= len(ACTIONS) or trial.subject not in TRAIN_SUBJECTS + TEST_SUBJECTS:
            raise UserError(f"{source}: {name}: actions are 1 to 27 and subjects 1 to 8; remove the file")
        if match[4] in files.setdefault(trial, {}):
            raise UserError(f"{source}: {name} and {files[trial][match[4]][0]} are the same recording; keep one")
        files[trial][match[4]] = name, content
    if not files:
        known = identify(source)
        raise UserError(f"{source}: no file like Inertial/a1_s1_t1_inertial.mat in it; {known or 'is it UTD-MHAD?'}")
    return {trial: _recording(source, trial, files[trial], raw) for trial in files}


def _mat_files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file in `source` with the name of a recording. Archives are read in memory.

    A folder without such files may hold archives, as the authors' page has them: `Inertial.zip` and `Skeleton.zip`.
    """
    if source.is_dir():
        paths = sorted(source.rglob("*.mat"))
        for path in paths:
            yield path.relative_to(source).as_posix(), path.read_bytes()
        if not any(_FILE.search(path.as_posix()) for path in paths):
            for path in sorted(p for p in source.iterdir() if p.name.lower().endswith(_ARCHIVES)):
                yield from _archive(path)
        return
    if not source.is_file():
        raise UserError(f"{source}: no such directory or archive")
    yield from _archive(source)


def _archive(source: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with memory_for(source):
            yield from _zip_members(source) if zipfile.is_zipfile(source) else _tar_members(source)
    except (*_BROKEN_ARCHIVE, OverflowError, ValueError, MemoryError) as error:
        known = identify(source)
        raise UserError(f"{source}: not a whole tar or zip archive ({error}); {known or 'fetch it again'}") from error


def _zip_members(source: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            if _FILE.search(member.filename) and member.file_size <= _LARGEST_FILE:
                yield member.filename, archive.read(member)


def _tar_members(source: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(source) as archive:
        for member in archive:
            if member.size < 0:
                raise tarfile.ReadError(f"{member.name}: {member.size} bytes")  # tarfile would read it for ever
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None and _FILE.search(member.name) and member.size <= _LARGEST_FILE:
                yield member.name, content.read()


def _recording(source: Path, trial: Trial, files: Mapping[str, tuple[str, bytes]], raw: bool) -> dict[str, Array]:
    for kind in ("inertial", "skeleton"):
        if kind not in files:
            raise UserError(f"{source}: {trial}_{kind}.mat is missing; both files of a recording are needed")
    inertial = _variable(source, *files["inertial"], "d_iner", (None, 6))
    skeleton = _variable(source, *files["skeleton"], "d_skel", (20, 3, None))
    if not raw:
        skeleton = body_frame(skeleton)
        if not np.isfinite(skeleton).all():
            name, _ = files["skeleton"]
            raise UserError(f"{source}: {name}: torso or hip line has no length at the start; use --raw")
    return {
        "skeleton": skeleton.transpose(2, 0, 1).reshape(-1, 60).astype(np.float32),
        "accelerometer": inertial[:, :3].astype(np.float32),
        "gyroscope": inertial[:, 3:].astype(np.float32),
    }


def _variable(source: Path, name: str, content: bytes, key: str, shape: tuple[int | None, ...]) -> Array:
    """The float64 array `key` of a MATLAB file; None in `shape` is the time axis, of any length but 0."""
    if content.startswith(b"MATLAB 7.3"):
        raise UserError(f"{source}: {name}: a MATLAB file of version 7.3; save it again with save(FILE, '-v7')")
    try:
        value = np.asarray(scipy.io.loadmat(io.BytesIO(content), variable_names=[key])[key])
    except KeyError:
        raise UserError(f"{source}: {name}: has no variable {key!r}") from None
    except Exception as error:  # scipy raises whatever a broken file leads it to
        raise UserError(f"{source}: {name}: not a readable MATLAB file ({error})") from error
    wanted = tuple("T" if size is None else size for size in shape)
    fits = value.ndim == len(shape) and all(b in (None, a) for a, b in zip(value.shape, shape, strict=True))
    if not fits or value.size == 0 or value.dtype.kind not in "fiu":
        raise UserError(f"{source}: {name}: {key!r} is {value.dtype} {value.shape}, not numbers {wanted}")
    if not np.isfinite(value).all():
        raise UserError(f"{source}: {name}: {key!r} holds NaN or infinity")
    return value.astype(np.float64)


def _resample(sequence: Array, steps: int) -> Array:
    """(T, F) -> (steps, F): linear between samples, first and last step kept."""
    position = np.linspace(0, len(sequence) - 1, steps)
    before = position.astype(np.int64)
    after = np.minimum(before + 1, len(sequence) - 1)
    share = (position - before).astype(np.float32)[:, None]
    resampled: Array = sequence[before] * (1 - share) + sequence[after] * share
    return resampled


def _pad(sequence: Array, steps: int) -> Array:
    """(T, F) -> (steps, F) with zeros in front."""
    return np.pad(sequence, ((steps - len(sequence), 0), (0, 0)))
