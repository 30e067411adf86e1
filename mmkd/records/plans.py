"""Record of a study's plan: what it compares, and each later change of that, with its date."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from mmkd.config import SplitSettings
from mmkd.records.schema import FileName, Record


class PlannedRow(Record):
    """A row in a plan: tuning trials and seeds of each replicate, and the directories of these in their order.

    `control` is the one that it names, None where it names none; `selection` is the validation metric that chooses its
    winner.
    """

    control: str | None = None
    trials: int
    seeds: int
    selection: str
    directories: tuple[FileName, ...]


class PlanVersion(Record):
    """The comparison that a study makes from a time on.

    Args:
        at: seconds since 1970 by the controller's clock.
        tested: final runs of the study's rows that had read test data by then.
        deleted: those that the plan knew and that were gone, as `ROW/confirm/RUN`.
        code: hash of mmkd's source, with the commit and the hash of what differed from it.
        data: fingerprint.
    """

    at: float
    tested: int = 0
    deleted: tuple[str, ...] = ()
    code: str = ""
    commit: str = ""
    diff: str = ""
    control: str | None
    data: str
    primary: str
    splits: SplitSettings
    replicates: int
    rows: Mapping[FileName, PlannedRow]

    @property
    def directories(self) -> frozenset[str]:
        """The directories of all rows, below `rows`."""
        return frozenset(name for row in self.rows.values() for name in row.directories)


class PlanRecord(Record):
    """`plans/<study>.json`: the plan of a study, written before its first trial, and its later versions in order.

    `tested` are the final runs that have read test data by row's directory, as the controller last saw them.
    """

    study: str
    versions: Annotated[tuple[PlanVersion, ...], Field(min_length=1)]
    tested: Mapping[FileName, tuple[FileName, ...]] = {}
