"""Read the trials of a row: those that its `finished.jsonl` describes from there, the others from their directories."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.loading.read_trial import Reading, read_line, read_trial
from mmkd.finished import UNWRITABLE, Finished, line_name, read_finished, write_finished
from mmkd.lock import read_holder
from mmkd.records import FinishedTrial
from mmkd.rundir import RowDir, TrialDir


def read_row(
    root: Path,
    row: RowDir,
    trials: Sequence[TrialDir],
    *,
    use_cache: bool,
    tell: Callable[[str], object] = lambda what: None,
) -> list[Reading]:
    """Readings of these trials of a row, in their order. With `use_cache`, renew its `finished.jsonl` where needed."""
    known = read_finished(row) if use_cache else Finished({}, is_clean=True)
    readings, lines = [], []
    for trial in trials:
        name = line_name(trial)
        directory = f"rows/{row.path.name}/{name}"
        line = known.trials.get(name)
        if line is None:
            tell(f"reading {directory}")
            reading = read_trial(root, directory)
            line = reading.line
        else:
            reading = read_line(directory, line)
        readings.append(reading)
        lines += [line] if line else []
    if use_cache and not (known.is_clean and len(lines) == len(known.trials)):
        _renew(row, lines)
    return readings


def _renew(row: RowDir, lines: Sequence[FinishedTrial]) -> None:
    """Rewrite the file, unless a controller is at work on the row, which writes it itself."""
    holder = read_holder(row.lock)
    if holder is not None and holder.alive:
        return
    try:
        write_finished(row, lines)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            warnings.warn(
                f"{row.finished}: not written ({error}); the next load reads these trials again", stacklevel=2
            )
