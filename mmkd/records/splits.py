"""Record of a drawn split."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from mmkd.config import Scheme, digest
from mmkd.errors import UserError
from mmkd.records.schema import Record, read_record, write_record
from mmkd.rundir import Root


class SplitRecord(Record):
    """`splits/<digest>.json`: a drawn split.

    `parts` is part (train, valid, test) -> group -> ids of its samples, sorted. A group is in one part only.
    """

    scheme: Scheme
    parts: Mapping[str, Mapping[str, tuple[str, ...]]]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the record: the same for the same samples and groups, however they were drawn."""
        return digest(self.model_dump(mode="json"))


def store_split(root: Root, split: SplitRecord) -> Path:
    """Write the record of a drawn split below `root`, unless it is there; return its path.

    Raises:
        UserError: there is another content under its name.
    """
    path = root.split(split.digest)
    if path.exists():
        if read_record(path, SplitRecord, "remove it and launch again to rewrite it") != split:
            raise UserError(f"{path}: not the split that it is named after; remove it and launch again to rewrite it")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, split)
    return path
