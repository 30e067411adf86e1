"""The end of a trial's log."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from mmkd.errors import UserError, choose
from mmkd.rundir import TrialDir
from slurm.monitoring.rows import Row
from slurm.monitoring.trials import Trial

LOG_BYTES = 32768
LOG_LINES = 50


@dataclass(frozen=True)
class LogTail:
    """The last lines of a log, without colours and control characters; `path` is relative to the root."""

    title: str
    path: str
    lines: tuple[str, ...]


def find_trial(wanted: str, trials: Sequence[Trial], rows: Sequence[Row]) -> TrialDir:
    """The trial that `--log` names: ROW/trials/3, ROW/confirm/1, teachers/4f1e; ROW is a row's name or its folder.

    Raises:
        UserError: there is none, or several.
    """
    owner, _, rest = wanted.strip("/").removeprefix("rows/").partition("/")
    folders = {row.name: row.directory.path.name for row in rows} | {row.directory.path.name: "" for row in rows}
    if owner != "teachers":
        owner = folders[choose("row: --log", owner, folders)] or owner
    prefix = f"{owner}/{rest}"
    keys = {_key(trial): trial.place.directory for trial in trials}
    if prefix in keys:
        return keys[prefix]
    found = [key for key in keys if key.startswith(prefix) and "/trials/" not in key]
    if len(found) == 1:
        return keys[found[0]]
    there = ", ".join(key.partition("/")[2] for key in keys if key.startswith(f"{owner}/")) or "none"
    said = there if len(there) < 200 else f"{there[:200]} …"
    raise UserError(f"--log {wanted}: {'several trials are' if found else 'no trial is'} called so; there are: {said}")


def _key(trial: Trial) -> str:
    """A trial's place below `rows/` or the root: ROW/trials/3, teachers/4f1e..."""
    path = trial.place.directory.path
    return "/".join(path.parts[-2:] if trial.place.kind == "teacher" else path.parts[-3:])


def tail_log(trial: Trial) -> LogTail:
    """The end of the log of a trial's latest attempt."""
    last, place = trial.last, trial.place
    title = f"{place.label} {place.name}"
    if last is None:
        return LogTail(title, "", ("not submitted yet",))
    path = place.directory.log(last.number)
    inside = path.relative_to(place.directory.root.path)
    return LogTail(f"{title}, attempt {last.number}", str(inside), tuple(_last_lines(path)))


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - LOG_BYTES, 0))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ["no log yet"]
    # A progress bar writes over its line: what stands after the last carriage return is what a terminal would show.
    shown = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    lines = [Text.from_ansi(line.expandtabs()).plain for line in shown]
    said = [line for line in lines[1 if size > LOG_BYTES else 0 :] if line.strip()]
    return said[-LOG_LINES:] or ["the log is empty"]
