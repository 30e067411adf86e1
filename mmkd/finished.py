"""Read and write `finished.jsonl`, a row's finished trials in brief, so that readers need not open every trial's files.

It is a cache: the directories are the source of truth. A line holds as long as its result file has the same size,
mtime and inode, and the line its checksum. The last line about a trial counts. Lines that are torn, damaged, outdated,
or of a trial that is gone are left out, and their trials are read from their directories. Only results whose checksum
was right get a line.

The controller that holds the row's lock writes it. Without a controller, the analysis may rewrite it, by rename.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mmkd.attempts import Attempt, read_attempts
from mmkd.config import ALGORITHM_VERSION, SEEDS_PER_REPLICATE, StudentConfig, TeacherConfig, from_json, identity
from mmkd.files import write_text
from mmkd.records import AttemptRecord, FinishedTrial, TrialFacts, as_written
from mmkd.result_file import read_result
from mmkd.rundir import Root, RowDir, TrialDir

FORMAT = 1
"""Raised when a line gets another content; lines of another format or algorithm version do not hold."""

UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
"""The root may be somebody else's, or an archive: then readers read every directory each time."""

RESULT, ATTEMPTS = TrialDir(Path()).result.name, TrialDir(Path()).attempts.name

_lines = TypeAdapter(list[FinishedTrial])


@dataclass(frozen=True)
class Finished:
    """The lines of a row's `finished.jsonl` that hold, by directory; `is_clean` if the file has no others."""

    trials: Mapping[str, FinishedTrial]
    is_clean: bool


def read_finished(row: RowDir, *, careful: bool = False) -> Finished:
    """Read the lines that hold: one read of the file, and one stat per line.

    A line is written once nobody will change the records of its attempts. `careful`: verify that by a second stat per
    line, as the controller does, which would note the end of an attempt that has none.
    """
    path = str(row.finished)
    stamp = _stamp(path)
    if stamp is None:
        return Finished({}, is_clean=True)
    latest = _latest(path, stamp)
    kept = {name: line for name, line in latest.trials.items() if _holds(row, line, careful)}
    return Finished(kept, is_clean=latest.is_clean and len(kept) == len(latest.trials))


_read: dict[str, tuple[tuple[int, int, int], Finished]] = {}
"""By path: what a file's lines said, holding or not, and the file's stamp. A launch reads each file several times."""


def _latest(path: str, stamp: tuple[int, int, int]) -> Finished:
    """The last line about each trial; `is_clean` if the file has no others. `stamp` is the file's."""
    known = _read.get(path)
    if known is not None and known[0] == stamp:
        return known[1]
    try:
        raw = Path(path).read_bytes().split(b"\n")
    except OSError:
        return Finished({}, is_clean=False)
    latest = {line.directory: line for line in _parse([line for line in raw if _is_whole(line)])}
    found = Finished(latest, is_clean=not raw[-1] and len(latest) == len(raw) - 1)
    _read[path] = (stamp, found)
    return found


def _parse(raw: list[bytes]) -> list[FinishedTrial]:
    """All lines at once, which is fast; one by one where one of them has another format."""
    try:
        return _lines.validate_json(b"[" + b",".join(raw) + b"]")
    except ValidationError:
        found = []
        for line in raw:
            try:
                found.append(FinishedTrial.model_validate_json(line))
            except ValidationError:
                continue  # its trial is read from its directory
        return found


def _is_whole(line: bytes) -> bool:
    """True if a line ends in its own checksum: a flipped bit could be another accuracy."""
    body = line[: -len(_mark(b""))]
    return line.endswith(_mark(body))


def _mark(body: bytes) -> bytes:
    """The end of a line that begins with `body`."""
    return b',"crc32":"%08x"}' % zlib.crc32(body)


def _holds(row: RowDir, line: FinishedTrial, careful: bool) -> bool:
    if (line.format, line.algorithm) != (FORMAT, ALGORITHM_VERSION):
        return False
    directory = f"{row.path}/{line.directory}"
    if _stamp(f"{directory}/{RESULT}") != line.result:
        return False
    return not careful or _changed(f"{directory}/{ATTEMPTS}") == line.attempts_changed


def _stamp(path: str) -> tuple[int, int, int] | None:
    """Size, mtime_ns and inode of a file; None if it cannot be seen."""
    try:
        found = os.stat(path)  # one pathlib.Path per file would take longer than the call itself
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _changed(path: str) -> int:
    """The mtime_ns of a directory, whose files come by rename; 0 without one."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def describe(directory: TrialDir) -> tuple[FinishedTrial, bool]:
    """Read a finished trial's directory. Also return if its line would stay true: all its attempts are final.

    Raises:
        FileNotFoundError, ResultError: see `mmkd.result_file.read_result`.
        UserError: its configuration or a record of an attempt is invalid.
    """
    stamp = _stamp(str(directory.result))  # before the reading: what replaces it meanwhile has another one
    changed = _changed(str(directory.attempts))
    result = read_result(directory.result, predictions=False, curves=False)
    config = from_json(result.config, directory.config)
    attempts = read_attempts(directory)
    line = FinishedTrial(
        format=FORMAT,
        algorithm=config.algorithm,
        directory=line_name(directory),
        result=stamp or (0, 0, 0),
        attempts_changed=changed,
        status=result.status.value,
        reason=result.reason,
        best_epoch=result.best_epoch,
        epochs=result.epochs,
        seconds=result.seconds,
        parameters=result.parameters,
        device=result.device,
        weights_sha256=result.weights_sha256,
        metrics=result.metrics,
        facts=facts_of(config),
        attempts=tuple(AttemptRecord(number=a.number, submitted=a.submitted, ran=a.ran) for a in attempts),
    )
    return line, all(attempt.is_final for attempt in attempts)


def line_name(directory: TrialDir) -> str:
    """A trial's name in its row's lines: `trials/3`, `confirm/1-4f1e`."""
    return f"{directory.path.parent.name}/{directory.path.name}"


def facts_of(config: TeacherConfig | StudentConfig) -> TrialFacts:
    """Facts that a configuration decides: data, split, seed, hyperparameters, teacher."""
    values: dict[str, Any] = {
        "seed": config.seed,
        "replicate": config.seed // SEEDS_PER_REPLICATE,
        "split": config.split and config.split.digest,
        "learning_rate": config.training.learning_rate,
        "fingerprint": config.data.fingerprint,
    }
    if isinstance(config, StudentConfig):
        values |= config.distillation.model_dump(include={"alpha", "beta", "temperature"})
    teacher = config if isinstance(config, TeacherConfig) else config.teacher
    if teacher is not None:
        values["teacher"] = Root(Path()).teacher(identity(teacher)).path.as_posix()
        family = identity(teacher.model_copy(update={"seed": 0, "split": None}))[:16]
        values["teacher_family"] = teacher.tuned_from or family
        values["branch"] = teacher.branch
    return TrialFacts.model_validate(values)


def attempts_of(line: FinishedTrial) -> list[Attempt]:
    """All attempts of a finished trial, as `mmkd.attempts.read_attempts` reads them from its directory."""
    return [Attempt(attempt.number, attempt.submitted, attempt.ran) for attempt in line.attempts]


def add_finished(row: RowDir, lines: Iterable[FinishedTrial]) -> None:
    """Append lines in one write, after a new line where a kill tore the last one. Hold the row's lock.

    Raises:
        OSError: the disk's error. What a failed write left behind counts as torn.
    """
    text = "".join(map(_as_text, lines))
    with row.finished.open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            text = text if file.read() == b"\n" else f"\n{text}"
        file.write(text.encode())


def write_finished(row: RowDir, lines: Iterable[FinishedTrial]) -> None:
    """Replace all lines, by rename.

    Raises:
        OSError: the disk's error.
    """
    write_text(row.finished, "".join(map(_as_text, lines)))


def _as_text(line: FinishedTrial) -> str:
    body = json.dumps(as_written(line), separators=(",", ":"))[:-1].encode()
    return (body + _mark(body)).decode() + "\n"
