"""Optuna studies in journal files: open, heal, and bring trials up to date with few writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from mmkd.errors import UserError


class Journal(JournalFileBackend):
    """A journal file that can write several entries at once, with one flush to disk; `lock` is one of Optuna's kind."""

    def __init__(self, path: Path, lock: Any = None) -> None:
        super().__init__(str(path), lock)
        self.path = path
        self._held: list[dict[str, Any]] | None = None

    @contextmanager
    def one_write(self) -> Iterator[None]:
        """Write all entries of the block when it ends; nothing in it may depend on an entry of it."""
        held: list[dict[str, Any]] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None
        if held:
            self.append_logs(held)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write entries, or keep them until the end of `one_write`."""
        if self._held is None:
            super().append_logs(logs)
        else:
            self._held += logs

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Read entries from a number on; none within `one_write`, which would open the file for each entry."""
        return super().read_logs(log_number_from) if self._held is None else iter(())


@contextmanager
def damage_named(path: Path, remedy: str) -> Iterator[None]:
    """Raise a UserError with the `remedy` if the journal is found damaged in the block."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error}); {remedy}") from None


def complement(
    study: optuna.Study, trial: FrozenTrial, attributes: Mapping[str, Any], curve: Mapping[int, float]
) -> None:
    """Add what a running trial lacks of `attributes` and of its `curve` (step -> value). Nothing is written twice."""
    for name, value in attributes.items():
        if name not in trial.user_attrs:
            study._storage.set_trial_user_attr(trial._trial_id, name, value)
    for step, value in curve.items():
        if step not in trial.intermediate_values:
            study._storage.set_trial_intermediate_value(trial._trial_id, step, value)


def heal_journal(journal: Path) -> None:
    """Cut an incomplete last line, which a kill left: appending to it would damage the journal. Hold its lock."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with journal.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
