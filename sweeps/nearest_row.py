"""Find the stored row that differs least from a new one, and its differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmkd.records import RowRecord, as_written, differences, find_record
from mmkd.rundir import Root, RowDir
from sweeps.rows import Row

UNSET: tuple[Any, ...] = (None, {})
"""Values of keys that an identity lacks, and of tables without keys."""


def stored_identities(root: Root) -> dict[RowDir, dict[str, Any]]:
    """Identities of the rows below a root; rows without a valid record are left out."""
    records = ((directory, find_record(directory.row, RowRecord)) for directory in root.rows())
    return {directory: as_written(record.identity) for directory, record in records if record is not None}


def nearest_neighbour(row: Row, stored: Mapping[RowDir, Mapping[str, Any]]) -> tuple[RowDir, list[str]] | None:
    """Find the row of the same method, data and primary that differs least: `space.beta.high: 0.5, there 1.0`.

    `stored` are the identities of the rows below the root.
    """
    found = []
    for other, theirs in stored.items():
        if other != row.directory and all(
            theirs.get(key) == row.identity[key] for key in ("method", "data", "primary")
        ):
            differing = sorted(differences([row.identity, theirs]).items())
            pairs = [(key, mine, there) for key, (mine, there) in differing if mine not in UNSET or there not in UNSET]
            found.append((other, [f"{key}: {_shown(mine)}, there {_shown(there)}" for key, mine, there in pairs]))
    return min(found, key=lambda pair: len(pair[1])) if found else None


def _shown(value: Any) -> str:
    return "not set" if value in UNSET else repr(value)
