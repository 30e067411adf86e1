"""Read a profile (TOML): networks and training recipe for a kind of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mmkd.errors import UserError, choose
from mmkd.schema import explain
from sweeps.study_file import Recipe, read_toml

PROFILES = Path(__file__).parent / "profiles"


class Profile(Recipe):
    """Networks and training recipe for a kind of data; `sources` are words in the data set's source."""

    sources: list[str] = []
    teacher_tuning: dict[str, Any] = {}


def load_profile(name: str, source: str) -> tuple[str, Profile]:
    """Load the profile `name`; for `auto` the first whose words occur in the data's source, otherwise `default`.

    Raises:
        UserError: unknown, or not valid.
    """
    found = {path.stem: path for path in sorted(PROFILES.glob("*.toml"))}
    if name != "auto":
        path = Path(name) if name.endswith(".toml") else found[choose("profile", name, found)]
        return path.stem, _read_profile(path)
    profiles = {stem: _read_profile(path) for stem, path in found.items()}
    for stem, profile in profiles.items():
        if any(word.lower() in source.lower() for word in profile.sources):
            return stem, profile
    return "default", profiles["default"]


def _read_profile(path: Path) -> Profile:
    try:
        return Profile.model_validate(read_toml(path))
    except ValidationError as error:
        raise UserError(explain(error, path)) from None
