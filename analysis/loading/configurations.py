"""Trials' configurations as flat mappings, for reports and exports that leave this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmkd.files import read_json
from mmkd.records import leaves
from mmkd.rundir import TrialDir

LEFT_OUT = ("data.path", "teacher.data.path")
"""Paths of the data on this machine: not for a file that is passed on, and in each config.json."""


def flat_configuration(directory: Path) -> dict[str, Any] | None:
    """The leaves of a trial's configuration, without `LEFT_OUT`; None if it has no config.json yet.

    Raises:
        OSError: the file is there and cannot be read.
    """
    path = TrialDir(directory).config
    value = read_json(path) if path.exists() else None
    return {key: leaf for key, leaf in leaves(value) if key not in LEFT_OUT} if isinstance(value, Mapping) else None
