"""Search ranges and spaces of a study file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from mmkd.records import SearchRange
from mmkd.schema import Frozen


class Range(SearchRange, Frozen):
    """A search range as a study file gives it; `default` is tried first."""

    default: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_no_list(cls, value: Any) -> Any:
        if isinstance(value, list):
            raise ValueError("write a range as { low = 0.1, high = 1.0 }, and a fixed value as a number")
        return value

    @model_validator(mode="after")
    def _is_possible(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} is not below high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range begins above 0, low = {self.low}")
        if self.default is not None and not self.low <= self.default <= self.high:
            raise ValueError(f"default = {self.default} is outside of {self.low} to {self.high}")
        return self


Positive = Annotated[float, Field(gt=0)]
UnitWeight = Annotated[float, Field(ge=0, le=1)]


class Space(Frozen):
    """The search space: a range or a fixed number per hyperparameter; the method's default if omitted."""

    learning_rate: Range | Positive | None = None
    alpha: Range | UnitWeight | None = None
    beta: Range | UnitWeight | None = None
    temperature: Range | Positive | None = None

    @model_validator(mode="after")
    def _is_allowed(self) -> Space:
        for name in ("learning_rate", "temperature"):
            value = getattr(self, name)
            if isinstance(value, Range) and value.low <= 0:
                raise ValueError(f"{name} is above 0, low = {value.low}")
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            if isinstance(value, Range) and not (value.low >= 0 and value.high <= 1):
                raise ValueError(f"{name} must be in [0, 1] (Eq. 1), not {value.low} to {value.high}")
        return self
