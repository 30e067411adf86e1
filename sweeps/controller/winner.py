"""Record a row's winner, and tell from it and `finished.jsonl` that tuning is over, without opening the journal.

A journal of 500 trials with 100 epochs each takes a third of a second to open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmkd.files import write_text
from mmkd.lock import FileLock
from mmkd.records import FinishedTrial, WinnerRecord, find_record, write_record
from mmkd.result_file import Status
from mmkd.rundir import RowDir
from mmkd.trial_state import State, trial_state
from sweeps.controller.optuna_study import Tuning
from sweeps.controller.tasks import Task


@dataclass(frozen=True)
class Tuned:
    """A row whose trials were all reported, and have a line or failed: what its journal would tell.

    `diverged` and `failed` are numbers of trials; only diverged ones have a result.
    """

    winner: WinnerRecord
    diverged: tuple[int, ...]
    failed: tuple[int, ...]


def read_tuned(row: RowDir, lines: Mapping[str, FinishedTrial]) -> Tuned | None:
    """Return what is known of a tuned row without its journal; None where the journal has to be read.

    Args:
        row: the row.
        lines: those of its `finished.jsonl` that hold (`mmkd.finished.read_finished`).
    """
    winner = find_record(row.winner, WinnerRecord)
    # Only the journal knows which of the trials that were tried again is the other's retry.
    if winner is None or winner.journal != journal_size(row) or winner.numbers != winner.trials:
        return None
    diverged, failed = [], []
    for number in range(winner.numbers):
        line = lines.get(f"trials/{number}")
        if line is None and trial_state(row.trial(number)) is not State.FAILED:
            return None
        if line is None:
            failed.append(number)
        elif Status(line.status) is Status.DIVERGED:
            diverged.append(number)
    return Tuned(winner, tuple(diverged), tuple(failed))


def journal_size(row: RowDir) -> int:
    """Bytes of the row's journal, which only grows; -1 without one."""
    return row.journal.stat().st_size if row.journal.exists() else -1


def write_winner(row: RowDir, tuning: Tuning, selection: str, final: Mapping[int, Task], lock: FileLock) -> None:
    """Record the winner and its final runs (by seed), and mark those of another winner.

    Raises:
        LockLost: another controller has taken over the row.
    """
    chosen = tuning.chosen()
    assert chosen is not None
    winner, value = chosen
    named = {seed: task.directory.path.name for seed, task in final.items()}
    marks = {name.partition("-")[2] for name in named.values()}
    # Runs of further seeds, which another study of this row may show, count as well.
    for other in row.final_runs():
        seed, _, mark = other.path.name.partition("-")
        if mark in marks:
            named.setdefault(int(seed), other.path.name)
    named = dict(sorted(named.items()))
    record = WinnerRecord(
        trial=winner.number,
        value=value,
        params={name: float(value) for name, value in winner.params.items()},
        trials=tuning.sampled,
        numbers=tuning.numbers,
        selection=selection,
        seeds=tuple(named),
        confirm=named,
        journal=journal_size(row),
    )
    if find_record(row.winner, WinnerRecord) != record:
        lock.check()
        write_record(row.winner, record)
    for other in row.final_runs():
        if other.path.name.partition("-")[2] in marks:
            other.superseded.unlink(missing_ok=True)
        elif not other.superseded.exists():
            write_text(other.superseded, f"trial {winner.number} is the row's winner now\n")
