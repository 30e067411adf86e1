"""The table [teacher_tuning] of a study file or a profile."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from mmkd.schema import Frozen
from sweeps.search_space import Range

Readout = Literal["last", "mean"]


class TeacherTuning(Frozen):
    """Settings of tuned teachers: validation chooses one of `trials` configurations in each replicate; 0: not tuned.

    The first is the recipe as it is. `dropout` replaces all probabilities but those on attention weights.
    `augmentation` is the share of the recipe's augmentation, see `sweeps.teacher_search.AUGMENTATION`.
    """

    trials: Annotated[int, Field(ge=0, le=1000)] = 0
    learning_rate: Range = Range(low=3e-4, high=1e-2, log=True)
    dropout: Range = Range(low=0.0, high=0.4)
    augmentation: Range = Range(low=0.0, high=1.0)
    readout: Annotated[tuple[Readout, ...], Field(min_length=1)] = ("last", "mean")

    @field_validator("learning_rate", "dropout", "augmentation")
    @classmethod
    def _has_no_default(cls, value: Range) -> Range:
        if value.default is not None:
            raise ValueError("remove default: the first trial is the recipe as it is")
        return value

    @field_validator("learning_rate")
    @classmethod
    def _is_positive(cls, value: Range) -> Range:
        if value.low <= 0:
            raise ValueError(f"is above 0, low = {value.low}")
        return value

    @field_validator("dropout", "augmentation")
    @classmethod
    def _is_a_share(cls, value: Range) -> Range:
        if not (value.low >= 0 and value.high <= 1):
            raise ValueError(f"must be in [0, 1], not {value.low} to {value.high}")
        return value
