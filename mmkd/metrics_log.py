"""Read and write a trial's metrics file: one JSON line per epoch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from mmkd.files import last_lines, write_text
from mmkd.rundir import TrialDir


def append_metrics(directory: TrialDir, line: Mapping[str, Any]) -> None:
    """Append one epoch's line to the metrics file."""
    with directory.metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())  # a checkpoint that is written next counts on the line


def read_metrics(directory: TrialDir) -> list[dict[str, Any]]:
    """The epochs' lines; a line that a kill cut short ends the list."""
    lines: list[dict[str, Any]] = []
    try:
        with directory.metrics.open(encoding="utf-8", errors="replace") as file:
            for raw in file:
                value = json.loads(raw)
                if not isinstance(value, dict):
                    break
                lines.append(value)
    except (FileNotFoundError, ValueError, RecursionError):
        return lines
    return lines


def read_curve(directory: TrialDir, metric: str) -> list[float]:
    """A metric by epoch; a line without it ends the list."""
    lines = takewhile(lambda line: isinstance(line.get(metric), (int, float)), read_metrics(directory))
    return [float(line[metric]) for line in lines]


def tail_metrics(directory: TrialDir, size: int = 65536) -> list[dict[str, Any]]:
    """The epochs' lines in the last `size` bytes (by default some 200 epochs), less what is cut short at either end."""
    try:
        lines = last_lines(directory.metrics, size)
    except FileNotFoundError:
        return []
    return [value for line in lines if isinstance(value := _parsed(line), dict)]


def last_metrics(directory: TrialDir) -> dict[str, Any]:
    """The last whole line of the metrics file, however long that is; empty where there is none."""
    return next(reversed(tail_metrics(directory, LAST_BYTES)), {})


LAST_BYTES = 16384
"""More than any line of a metrics file has."""


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def cut_metrics(directory: TrialDir, history: Sequence[Mapping[str, Any]]) -> None:
    """Keep the metrics file's lines of the epochs in `history`: what the checkpoint that is resumed from knows.

    Lines that the file has lost since, to a disk that fails, are those of `history`.
    """
    lines = read_metrics(directory)[: len(history)]
    text = "".join(json.dumps(line) + "\n" for line in (*lines, *history[len(lines) :]))
    write_text(directory.metrics, text)


def print_epoch(epochs: int, line: Mapping[str, float]) -> None:
    """Print an epoch in one line, for the trial's log; a terminal shows the launch's own progress."""
    if not sys.stdout.isatty():
        loss, accuracy = line["valid_loss"], line["valid_accuracy"]
        print(f"epoch {line['epoch']}/{epochs}: valid loss {loss:.4f}, accuracy {accuracy:.4f}", flush=True)
