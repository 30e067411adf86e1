"""Implement --archive: write a study to one file and verify it by reading it back. Nothing is deleted."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from mmkd.files import check_output, write_atomically
from mmkd.formatting import count, size
from mmkd.provenance import SOURCE, snapshot_origin
from mmkd.records import RowRecord, code_versions, find_record
from mmkd.rundir import TrialDir
from mmkd.steps import show_steps
from sweeps.actions.clean import files_under
from sweeps.controller.row_locks import RowLocks, take_rows
from sweeps.launched_study import RecordedStudy

SUFFIXES = (".tar.gz", ".tgz")
RENEW_SECONDS = 30.0


class ArchiveDamaged(OSError):
    """The archive that was read back differs from what was written."""


def archive(study: RecordedStudy, target: Path) -> int:
    """Write the study to `target`, by rename once it is verified. Return the exit code.

    Raises:
        UserError: a controller is at work on it, or the file is there already or cannot be one.
        ArchiveDamaged: what was read back differs.
    """
    check_output(target, f"--archive {target}", SUFFIXES)
    with take_rows(study.row_directories(), "--archive") as locks:
        written: dict[str, str] = {}

        def write(path: Path) -> None:
            with show_steps() as tell:
                written.update(_write(study, path, locks, tell))
                tell("reading the archive back")
                _verify(path, written)

        write_atomically(target, write)
    print(f"{target}: {count(len(written), 'file')}, {size(target.stat().st_size)}, read back and found right")
    print(readme(study))
    return 0


def readme(study: RecordedStudy) -> str:
    """Describe the archive and its use."""
    return (
        f"{study.name}: {study.title}\n"
        f"An archive of an mmkd study: its rows, its teachers and what its table is made from; not the data.\n\n"
        f"tar xf FILE.tar.gz && mmkd table --root {study.name} --study {study.name}\n"
        f"mmkd predict --root {study.name} --trial ROW --data new.npy --out predictions.csv\n"
        f"mmkd launch --root {study.name}, with the study, data and options of its launches, resumes it\n"
    )


def members(study: RecordedStudy) -> Iterator[Path]:
    """Yield the study's files, without locks, leftovers and checkpoints of finished runs."""
    root = study.root
    yield root.study(study.name)
    yield from (p for p in [root.plan(study.name), root.controller_log(study.name)] if p.exists())
    for directory in [*(row.path for row in study.row_directories()), *(teacher.path for teacher in study.teachers())]:
        for path, _ in files_under(directory):
            finished = path.name == "checkpoint.pt" and TrialDir(path.parent).result.exists()
            if not (finished or path.suffix == ".lock" or path.name.startswith(".tmp-")):
                yield path
    yield from _splits(study)
    yield from _code(study)


def _splits(study: RecordedStudy) -> Iterator[Path]:
    """Yield the records of the drawn splits that the rows' trials use."""
    records = (find_record(row.row, RowRecord) for row in study.row_directories())
    digests = {record.identity.split for record in records if record is not None and record.identity.split}
    yield from (path for path in map(study.root.split, sorted(digests)) if path.exists())


def _code(study: RecordedStudy) -> Iterator[Path]:
    """Yield patches and snapshots of the code that the rows' trials ran."""
    versions = [version for row in study.row_directories() for version in code_versions(row)]
    patches = {f"{version.commit[:12]}-{version.diff}.patch" for version in versions}
    codes = {version.code for version in versions}
    for kept in sorted(study.root.code.glob("*")):
        origin = snapshot_origin(kept / SOURCE.name) if kept.is_dir() else None
        if origin is not None and origin.code in codes:
            yield from (path for path, _ in files_under(kept) if "__pycache__" not in path.parts)
        elif kept.name in patches:
            yield kept


def _write(study: RecordedStudy, path: Path, locks: RowLocks, tell: Callable[[str], object]) -> dict[str, str]:
    """Write the archive. Return the SHA-256 of each file by its name in it."""
    digests: dict[str, str] = {}
    renewed = time.monotonic()
    with tarfile.open(path, "w:gz", compresslevel=6) as tar:
        text = readme(study).encode()
        _add(tar, f"{study.name}/README.txt", io.BytesIO(text), len(text), time.time(), digests)
        for source in members(study):
            name = f"{study.name}/{source.relative_to(study.root.path).as_posix()}"
            tell(f"archiving {name}")
            try:
                # Opened first: what is replaced or removed meanwhile stays readable, and what grows is cut.
                with source.open("rb") as file:
                    status = os.fstat(file.fileno())
                    _add(tar, name, file, status.st_size, status.st_mtime, digests)
            except FileNotFoundError:
                continue
            if time.monotonic() - renewed > RENEW_SECONDS:
                locks.renew()
                renewed = time.monotonic()
    return digests


class _Hashing:
    """A file that hashes its content as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.hashed = file, hashlib.sha256()

    def read(self, number: int) -> bytes:
        content = self.file.read(number)
        self.hashed.update(content)
        return content


def _add(
    tar: tarfile.TarFile, name: str, file: IO[bytes], length: int, changed: float, digests: dict[str, str]
) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = length, int(changed), 0o644
    reader = _Hashing(file)
    tar.addfile(entry, reader)  # type: ignore[arg-type]  # it only reads
    digests[name] = reader.hashed.hexdigest()


def _verify(path: Path, digests: dict[str, str]) -> None:
    """Read the archive back.

    Raises:
        ArchiveDamaged: a file in it is missing or another one.
    """
    found: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for entry in tar:
                file = tar.extractfile(entry)
                if file is not None:
                    found[entry.name] = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise ArchiveDamaged(f"{path}: cannot be read back: {error}") from None
    wrong = sorted(name for name in digests.keys() | found.keys() if digests.get(name) != found.get(name))
    if wrong:
        raise ArchiveDamaged(f"{path}: read back wrong: {count(len(wrong), 'file')}, the first {wrong[0]}")
