"""Follow rows that other controllers work on, and take over those whose controller ends or dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mmkd.errors import UserError
from mmkd.lock import FileLock, LockHeld, read_holder
from mmkd.rundir import RowDir
from sweeps.controller.row import RowWork
from sweeps.rows import Row

LOOK_SECONDS = 3.0
"""Between two looks at the locks."""


class FollowedRows:
    """The rows of a study that other controllers work on, for other studies.

    Args:
        rows: the study's rows.
        parallel, study_file, study: see `RowWork`.
    """

    def __init__(self, rows: Iterable[Row] = (), parallel: int = 1, study_file: Path = Path(), study: str = "") -> None:
        self._parallel, self._study_file, self.study = parallel, study_file, study
        self._locks = {row.directory: FileLock(row.directory.lock, purpose=study) for row in rows}
        self.holders: dict[RowDir, tuple[Row, LockHeld]] = {}
        """Rows that are followed, and who holds them."""
        self.joined: Callable[[RowWork], str] = lambda work: ""
        """Called for each row that is taken or finished later; its text is reported."""
        self._looked = float("-inf")

    def __len__(self) -> int:
        return len(self.holders)

    def take(self, rows: Iterable[Row]) -> Iterator[RowWork]:
        """Yield those of the rows that nobody holds, or that need no work; follow the others.

        Raises:
            UserError: a living controller of the same study holds a row.
        """
        for row in rows:
            try:
                yield RowWork(row, self._parallel, self._study_file, self.study, self._locks[row.directory])
            except LockHeld as held:
                self._refuse_second(row, held)
                self.holders[row.directory] = (row, held)
            else:
                self.holders.pop(row.directory, None)

    def look(self) -> list[RowWork]:
        """Return the followed rows that can be taken now, or are finished, at a polite rate."""
        if not self.holders or time.monotonic() - self._looked < LOOK_SECONDS:
            return []
        self._looked = time.monotonic()
        return list(self.take([row for row, _ in self.holders.values()]))

    def _refuse_second(self, row: Row, held: LockHeld) -> None:
        holder = read_holder(row.directory.lock)
        if (
            row.directory not in self.holders
            and held.is_certain
            and holder is not None
            and holder.purpose == self.study
        ):
            raise UserError(
                f"row {row.title}: another controller is at work: {held}, for this study; --status shows it, --cancel "
                f"ends it"
            )

    def describe(self) -> list[str]:
        """Say once per row who is followed."""
        said = []
        for row, held in self.holders.values():
            holder = read_holder(row.directory.lock)
            purpose = f", for study {holder.purpose}" if holder is not None and holder.purpose else ""
            said.append(f"row {row.title}: followed, because another controller works on it: {held}{purpose}")
        return said
