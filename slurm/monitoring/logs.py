"""Read the end of a trial's log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from mmkd.attempts import current_attempt
from mmkd.errors import UserError, choose
from mmkd.files import last_lines
from mmkd.rundir import Root, TrialDir
from slurm.monitoring.rows import Row

LOG_BYTES = 32768
LOG_LINES = 50


@dataclass(frozen=True)
class LogTail:
    """The last lines of a log, without colours and control characters; `path` is relative to the root."""

    path: Path
    lines: tuple[str, ...]


def find_trial(wanted: str, root: Root, rows: Sequence[Row]) -> TrialDir:
    """The trial that `--log` names: ROW/trials/3, ROW/confirm/1, teachers/4f1e; ROW is a row's name or its folder.

    Raises:
        UserError: there is none, or several.
    """
    owner, _, rest = wanted.removeprefix(f"{root.path}/").strip("/").removeprefix("rows/").partition("/")
    if owner == "teachers":
        candidates, name = root.teachers(), rest
    else:
        by_folder, by_name = {row.directory.path.name: row for row in rows}, {row.name: row for row in rows}
        row = (by_folder.get(owner) or by_name[choose("row (--log)", owner, by_name)]).directory
        kind, _, name = rest.partition("/")
        candidates = row.final_runs() if kind == "confirm" else row.trials()
    exact = [place for place in candidates if place.path.name == name]
    begins = [place for place in candidates if name and place.path.name.startswith(name)]
    found = exact or begins
    if len(found) == 1:
        return found[0]
    names = ", ".join(place.path.name for place in candidates[:20]) + (", …" if len(candidates) > 20 else "")
    trouble = "names several" if found else "no such trial"
    raise UserError(f"--log {wanted}: {trouble}; ROW/trials/N, ROW/confirm/SEED or teachers/NAME ({names or 'none'})")


def tail_log(directory: TrialDir) -> LogTail:
    """The end of the log of a trial's latest attempt."""
    path = directory.log(current_attempt(directory))
    return LogTail(path.relative_to(directory.root.path), tuple(_shown_lines(path)))


def _shown_lines(path: Path) -> list[str]:
    try:
        raw = last_lines(path, LOG_BYTES)
    except FileNotFoundError:
        return ["there is no log yet"]
    # A progress bar writes over its line: what stands after the last carriage return is what a terminal would show.
    shown = (line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2] for line in raw)
    lines = [Text.from_ansi(line.expandtabs()).plain for line in shown]
    said = [line for line in lines if line.strip()]
    return said[-LOG_LINES:] or ["the log is empty"]
