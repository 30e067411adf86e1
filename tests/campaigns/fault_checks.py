"""What must be true of a root when its study is done, whatever was done to it; checked against an undisturbed one."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fault_study import processes_of
from survival import STATE_SET, STATES, numbers, reported, trial_dirs

from mmkd.attempts import read_attempts
from mmkd.files import read_json
from mmkd.finished import describe, line_name, read_finished
from mmkd.metrics_log import read_metrics
from mmkd.result_file import SET_ASIDE, ResultError, Status, read_result
from mmkd.rundir import Root, RowDir, TrialDir

LOST, DOUBLED, CHANGED, LEFT = "lost", "doubled", "changed", "left"
"""A trial or a telling is missing, or one too many; a number is not the undisturbed; a process or a file is left."""


LONGEST_SECONDS = 3600.0
"""No attempt of a tiny study lasts so long; a wrong clock is two hours off."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it must be; `kind` is one of the four above."""

    kind: str
    text: str


def check(root: Path, undisturbed: Path) -> list[Finding]:
    """All that is wrong under `root`."""
    wrong = [*_numbers(root, undisturbed), *_reports(root, undisturbed), *_attempts(root), *_left(root)]
    wrong += [*_weights(root), *_lines_against_directories(root)]
    return wrong + [f for row in Root(root).rows() for f in _journal_against_directories(row)]


def _numbers(root: Path, undisturbed: Path) -> Iterator[Finding]:
    expected, found = numbers(undisturbed), numbers(root)
    yield from (Finding(LOST, f"no {key}") for key in sorted(expected.keys() - found.keys()))
    yield from (Finding(DOUBLED, f"{key} has no counterpart") for key in sorted(found.keys() - expected.keys()))
    common = sorted(expected.keys() & found.keys())
    # As text: a NaN is equal to itself, and no digit is lost.
    yield from (Finding(CHANGED, f"{key} differs") for key in common if repr(expected[key]) != repr(found[key]))


def _lines_against_directories(root: Path) -> Iterator[Finding]:
    """Each row's `finished.jsonl` has exactly one line for each finished trial, which says what its directory says."""
    for row in Root(root).rows():
        found = read_finished(row, careful=True)
        if not found.is_clean:
            yield Finding(LEFT, f"{row.finished}: has lines that do not hold")
        for directory in (*row.trials(), *row.final_runs()):
            if not directory.result.exists():
                continue
            line = found.trials.get(line_name(directory))
            if line is None:
                yield Finding(LOST, f"{row.finished}: no line of {line_name(directory)}")
            elif repr(line) != repr(describe(directory)[0]):
                yield Finding(CHANGED, f"{row.finished}: {line_name(directory)} differs from its directory")


def _weights(root: Path) -> Iterator[Finding]:
    """Each result's weights are there, and are those that it names."""
    for directory in trial_dirs(root):
        try:
            named = read_result(directory.result, predictions=False).weights_sha256
            content = directory.weights.read_bytes() if named else b""
        except (FileNotFoundError, ResultError) as error:
            yield Finding(LOST, str(error))
            continue
        if named and hashlib.sha256(content).hexdigest() != named:
            yield Finding(LOST, f"{directory.weights}: damaged")


def _reports(root: Path, undisturbed: Path) -> Iterator[Finding]:
    expected, found = reported(undisturbed), reported(root)
    for trial in sorted(expected.keys() | found.keys()):
        said = found.get(trial, [])
        if len(said) != 1:
            yield Finding(DOUBLED if said else LOST, f"{trial} was reported as {said}, not once")
        elif trial not in expected:
            yield Finding(DOUBLED, f"{trial} has no counterpart")
        elif said != expected[trial]:
            yield Finding(CHANGED, f"{trial} was reported as {said[0]}, undisturbed {expected[trial]}")


def _journal_against_directories(row: RowDir) -> Iterator[Finding]:
    """Every reported trial has a result that says the same, and the other way round."""
    facts = read_json(row.row)
    if facts is None:
        yield Finding(LOST, f"{row.row}: missing or damaged")
        return
    selection, values = facts["identity"]["selection"], dict(_told_values(row))
    for number in sorted(values.keys() | {int(trial.path.name) for trial in row.trials()}):
        directory = row.trial(number)
        if number not in values:
            yield Finding(LOST, f"{directory.path} was never reported")
            continue
        try:
            result = read_result(directory.result)
        except (FileNotFoundError, ResultError) as error:
            yield Finding(LOST, f"reported, and {error}")
            continue
        state, value = values[number]
        there = "failed" if result.status is Status.DIVERGED else str(result.status)
        if (state, value) != (there, result.metrics["valid"][selection] if there == "complete" else value):
            yield Finding(CHANGED, f"{directory.path}: reported as {state} {value}, the result says {result.status}")


def _told_values(row: RowDir) -> Iterator[tuple[int, tuple[str, float | None]]]:
    """By number, the state and value that were reported to Optuna."""
    for entry in map(json.loads, row.journal.read_text().splitlines()):
        if entry["op_code"] == STATE_SET and entry["state"] in STATES:
            yield entry["trial_id"], (STATES[entry["state"]], (entry.get("values") or [None])[0])


def _attempts(root: Path) -> Iterator[Finding]:
    for directory in trial_dirs(root):
        # What was started by hand under a number that no controller gave has a record of its own alone.
        ends = Counter(attempt.submitted.end for attempt in read_attempts(directory) if attempt.is_announced)
        aside = (directory.path / SET_ASIDE).exists()  # then what was complete before is an attempt too
        if not ends["complete"]:
            yield Finding(LOST, f"{directory.path}: no attempt ended complete: {dict(ends)}")
        elif ends["complete"] > 1 and not aside:
            yield Finding(DOUBLED, f"{directory.path}: {ends['complete']} attempts ended complete")
        if ends[""]:
            yield Finding(LEFT, f"{directory.path}: {ends['']} attempts of which nobody noted the end")
        for attempt in read_attempts(directory):
            costs = (attempt.submitted.gpu_seconds, attempt.submitted.seconds, attempt.ran.seconds)
            if any(not 0 <= cost < LONGEST_SECONDS for cost in costs if cost is not None):
                yield Finding(CHANGED, f"{directory.path}: attempt {attempt.number} cost {costs} s")
        epochs = [line["epoch"] for line in read_metrics(directory)]
        if epochs != list(range(1, len(epochs) + 1)):
            yield Finding(CHANGED, f"{directory.metrics}: not one line an epoch: {epochs}")


def _left(root: Path) -> Iterator[Finding]:
    for path in sorted(root.glob("**/*")):
        if path.name.startswith(".tmp-") or path.name.endswith(".lock"):
            yield Finding(LEFT, str(path))
        elif path == TrialDir(path.parent).checkpoint and TrialDir(path.parent).result.exists():
            yield Finding(LEFT, f"{path}: beside a result")
    yield from (Finding(LEFT, f"process {process.pid} lives: {root}") for process in processes_of(root))
