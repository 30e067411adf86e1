"""Read the site file: the settings of a cluster, with the command line's changes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from mmkd.config import Count
from mmkd.errors import UserError
from mmkd.schema import Frozen, explain
from slurm.fallback import TrialSettings
from slurm.settings import MemoryOrNone, Name, SlurmSettings, TimeLimit
from sweeps.study_file import merge, read_toml

SITE_FILE = "mmkd/site.toml"


class ControllerJob(Frozen):
    """Resources of a detached controller's job that differ from a trial's."""

    partition: Name | None = None
    account: Name | None = None
    qos: Name | None = None
    cpus: Count = 1
    mem: MemoryOrNone = "4G"
    time: TimeLimit = "1-00:00:00"


class Site(Frozen):
    """A site file: `[slurm]` for trials, `[detach]` for detached controllers, and shared settings.

    `parallel`: jobs at once, including pending ones; `stage`: copy the data to the node's disk ($TMPDIR) first;
    `on_event`: see --on-event.
    """

    parallel: Count = 16
    stage: bool = False
    on_event: str | None = None
    slurm: TrialSettings = TrialSettings()
    detach: ControllerJob = ControllerJob()

    @model_validator(mode="before")
    @classmethod
    def _are_in_their_tables(cls, table: Any) -> Any:
        for key in table if isinstance(table, dict) else ():
            if key in SlurmSettings.model_fields:
                other = ", or under [detach] for a detached controller" if key in ControllerJob.model_fields else ""
                raise ValueError(f"{key}: belongs under [slurm]{other}; move it below that heading")
        return table


def default_site_file() -> Path:
    """Return the path of the user's site file: under $XDG_CONFIG_HOME, by default ~/.config."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / SITE_FILE


def load_site(path: Path | None, changes: Mapping[str, Any]) -> Site:
    """Load the site file at `path` (None: the user's own, if it exists) and apply the command line's `changes`.

    Raises:
        UserError: the file does not exist, or a value in it or on the command line is invalid.
    """
    if path is None and not default_site_file().exists():
        table, origin = {}, "command line"
    else:
        origin = str(path or default_site_file())
        table = read_toml(Path(origin))
    try:
        Site.model_validate(table)
    except ValidationError as error:
        raise UserError(explain(error, origin, keys=SlurmSettings.model_fields)) from None
    try:
        return Site.model_validate(merge(table, changes))
    except ValidationError as error:
        raise UserError(explain(error, "command line")) from None
