"""Alternatives for trials whose jobs failed: `[[slurm.fallback]]` in a site file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from slurm.accounting import FAILURES
from slurm.settings import Name, SlurmSettings

CLASSES = tuple(sorted({*FAILURES.values(), "not_started"}))
"""Failure classes after which an alternative may be taken."""


class Fallback(BaseModel):
    """Another request for the next attempt, after one failed in a class of `after`."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    after: Annotated[tuple[str, ...], Field(min_length=1)]
    partition: Name | None = None
    gpus: str | None = None
    constraint: str | None = None

    @field_validator("after", mode="before")
    @classmethod
    def _is_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("after")
    @classmethod
    def _are_classes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in CLASSES:
                raise ValueError(f"{name!r} is no failure class; choose of {', '.join(CLASSES)}")
        return value

    @property
    def changes(self) -> dict[str, str]:
        """The settings that it replaces."""
        return self.model_dump(include={"partition", "gpus", "constraint"}, exclude_none=True)


class TrialSettings(SlurmSettings):
    """`[slurm]` in a site file: requests of a trial's job, and alternatives in the order in which they are taken."""

    fallback: tuple[Fallback, ...] = ()

    @model_validator(mode="after")
    def _are_valid(self) -> TrialSettings:
        for number in range(len(self.fallback)):
            self._changed(number)
        return self

    def after(self, failures: Sequence[str]) -> SlurmSettings:
        """See `SlurmSettings.after`: each failure may lead to the next alternative."""
        taken = 0
        for failure in failures:
            taken += taken < len(self.fallback) and failure in self.fallback[taken].after
        return self._changed(taken - 1) if taken else self

    def _changed(self, number: int) -> SlurmSettings:
        values = {name: getattr(self, name) for name in self.model_fields_set - {"fallback"}}
        return SlurmSettings.model_validate({**values, **self.fallback[number].changes})
