"""Tuned teachers: the candidates of a replicate, and the one that validation chose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from mmkd.config import Augmentation, TeacherConfig, derived_seed, digest, identity
from mmkd.metrics import best_trial
from mmkd.records import TeacherChoice, find_record, write_record
from mmkd.result_file import Status, read_summary
from mmkd.rundir import Root, TrialDir
from sweeps.search_space import Range
from sweeps.teacher_tuning import TeacherTuning

AUGMENTATION = Augmentation(crop=0.1, warp=0.2, rotation=0.2, scale=0.1, shift=0.1, noise=0.1)
"""Full strength for a recipe without augmentation: that of profile utd_mhad."""


@dataclass(frozen=True)
class TeacherSearch:
    """A random search for the teacher of a replicate.

    A candidate depends on `base`, the search space, the replicate and its number alone, and is a teacher like any
    other. So nothing has to be stored to resume, more trials keep those that are there, and all rows share them.

    Args:
        root: the root directory.
        base: the teacher of tuning as the recipe has it; the first candidate.
        settings: number of candidates, and their space.
        selection: the metric on validation that chooses.
        replicate: the replicate's number.
    """

    root: Root
    base: TeacherConfig
    settings: TeacherTuning
    selection: str
    replicate: int

    @property
    def facts(self) -> dict[str, Any]:
        """Settings of the search that belong to the identity of a row."""
        ranges = {name: {"default"} for name in ("learning_rate", "dropout", "augmentation")}
        return {**self.settings.model_dump(mode="json", exclude=ranges), "selection": self.selection}

    @cached_property
    def candidates(self) -> dict[TrialDir, TeacherConfig]:
        """The teachers to choose from, by their directories."""
        configs = [self.base, *map(self._candidate, range(1, self.settings.trials))]
        return {self.root.teacher(identity(config)): config for config in configs}

    def chosen(self) -> TeacherConfig | None:
        """Return the chosen candidate; None before `choose`."""
        if "_chosen" not in self.__dict__:
            record = find_record(self.record, TeacherChoice)
            directory = record and TrialDir(self.record.parents[1] / record.teacher)
            if directory not in self.candidates:
                return None
            self.__dict__["_chosen"] = self.candidates[directory]
        chosen: TeacherConfig = self.__dict__["_chosen"]
        return chosen

    def choose(self) -> str:
        """Choose among the candidates that are complete, and record it. Return the choice in words.

        The choice stays: a candidate that failed and is trained later changes nothing.

        Raises:
            FileNotFoundError, ResultError: a result cannot be read.
        """
        names = [directory for directory in self.candidates if directory.result.exists()]
        results = {number: read_summary(directory.result) for number, directory in enumerate(names)}
        values = {
            number: float(result.metrics["valid"][self.selection])
            for number, result in results.items()
            if result.status is Status.COMPLETE
        }
        best = best_trial(self.selection, values)
        assert best is not None
        record = TeacherChoice(
            teacher=names[best].path.name,
            selection=self.selection,
            values={names[number].path.name: value for number, value in values.items()},
        )
        write_record(self.record, record)
        number = list(self.candidates).index(names[best])
        return f"trial {number} of {len(self.candidates)} is chosen, valid {self.selection} {values[best]:.4f}"

    @property
    def record(self) -> Path:
        """The record of the choice, which moves with the first candidate."""
        first, *_ = self.candidates
        return first.choice(digest([[d.path.name for d in self.candidates], self.selection]))

    def _candidate(self, number: int) -> TeacherConfig:
        network, training = self.base.network, self.base.training
        dropout = self._draw(number, "dropout", self.settings.dropout)
        drops = network.dropout.model_copy(update=dict.fromkeys(("embedding", "residual", "relu", "output"), dropout))
        readout = self.settings.readout[int(self._share(number, "readout") * len(self.settings.readout))]
        full = training.augmentation if training.augmentation != Augmentation() else AUGMENTATION
        strength = self._draw(number, "augmentation", self.settings.augmentation)
        augmentation = Augmentation(**{name: _rounded(strength * value) for name, value in full})
        rate = self._draw(number, "learning_rate", self.settings.learning_rate)
        return self.base.model_copy(
            update={
                "network": network.model_copy(update={"dropout": drops, "readout": readout}),
                "training": training.model_copy(update={"learning_rate": rate, "augmentation": augmentation}),
            }
        )

    def _draw(self, number: int, name: str, space: Range) -> float:
        share = self._share(number, name)
        if space.log:
            return _rounded(space.low * math.exp(share * math.log(space.high / space.low)))
        return _rounded(space.low + share * (space.high - space.low))

    def _share(self, number: int, name: str) -> float:
        """A number in [0, 1) that depends on replicate, number and name alone."""
        return Random(derived_seed("teacher", self.replicate, number, name)).random()


def _rounded(value: float) -> float:
    """Four digits: the last ones of an exponential differ between machines, and would make another teacher."""
    return float(f"{value:.4g}")
