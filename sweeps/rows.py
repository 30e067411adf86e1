"""Resolve a study file and a data set into rows: their identities, directories and trial configurations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmkd.config import (
    ALGORITHM_VERSION,
    SEEDS_PER_REPLICATE,
    StudentConfig,
    TeacherConfig,
    digest,
    identity,
)
from mmkd.data import DatasetInfo
from mmkd.distillation.facts import MethodFacts
from mmkd.formatting import replicate_title
from mmkd.records import RowRecord
from mmkd.rundir import Root, RowDir, TrialDir
from sweeps.search_space import Range
from sweeps.study_file import Finalists, PaperFigures
from sweeps.teacher_search import TeacherSearch

TUNING_SEED = 0
"""Tuning trials and their teacher; final runs have the seeds 1, 2, ..."""


@dataclass(frozen=True)
class Row:
    """One replicate of a row, resolved: `ranges` are tuned, `fixed` are not.

    `student` is the configuration of its tuning trials, except for these; it contains the teacher's. `info` describes
    the data with the parts of the replicate's split. Rows of one replicate share their teachers, and the `search` for
    them; None: teachers are not tuned.
    """

    name: str
    label: str
    group: str | None
    paper: PaperFigures | None
    root: Root
    info: DatasetInfo
    student: StudentConfig
    method: MethodFacts
    ranges: Mapping[str, Range]
    fixed: Mapping[str, float]
    sampler: str
    trials: int
    seeds: int
    selection: str
    pruner: str
    replicate: int = 0
    search: TeacherSearch | None = None
    control: str | None = None
    """The row that it is compared with; None: the study's control."""
    finalists: Finalists | None = None

    @property
    def title(self) -> str:
        """The row's name, with its replicate if it is not the first."""
        return replicate_title(self.name, self.replicate)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Identity of the row, without its budgets `trials` and `seeds`."""
        student, distillation, teacher = self.student, self.student.distillation, self.student.teacher
        facts = {
            "algorithm": ALGORITHM_VERSION,
            "data": student.data.fingerprint,
            "primary": student.primary,
            "pairing": student.pairing,
            "method": distillation.method,
            "level": distillation.level,
            "settings": distillation.settings,
            "space": {name: r.model_dump(exclude={"default"}) for name, r in self.ranges.items()},
            "fixed": self.fixed,
            "sampler": self.sampler,
            "training": student.training.model_dump(mode="json", exclude={"learning_rate"}),
            "student": student.network.model_dump(mode="json"),
            "teacher": teacher and teacher.model_dump(mode="json", include={"branch", "network", "training"}),
            "selection": self.selection,
        }
        drawn = {"split": student.split.digest} if student.split else {}
        number = {"replicate": self.replicate} if self.replicate else {}  # a study can be extended to replicates
        tuned = {"teacher_tuning": self.search.facts} if self.search else {}
        if self.finalists:
            tuned["finalists"] = self.finalists.model_dump()
        return {**facts, **drawn, **number, **tuned, **({} if self.pruner == "none" else {"pruner": self.pruner})}

    @cached_property
    def digest(self) -> str:
        """Hash of the identity."""
        return digest(self.identity)

    @cached_property
    def directory(self) -> RowDir:
        """The row's directory, shared by all studies that contain it."""
        student, distillation = self.student, self.student.distillation
        words = (distillation.method, distillation.level, student.pairing, student.primary)
        return self.root.row("-".join(filter(None, words)), self.digest)

    def default(self) -> dict[str, float]:
        """The documented default, trial 0: each range's own `default`, else the usual value brought into the range."""
        usual = {"learning_rate": 1e-3, "alpha": 1.0, "beta": 1.0, "temperature": self.method.usual_temperature}
        return {
            name: min(max(usual[name], r.low), r.high) if r.default is None else r.default
            for name, r in self.ranges.items()
        }

    @property
    def budget(self) -> int:
        """Tuning trials, the runs of finalists included."""
        return self.trials + (min(self.finalists.best, self.trials) * self.finalists.seeds if self.finalists else 0)

    def teacher_config(self, seed: int) -> TeacherConfig | None:
        """Return the teacher of a seed; None if the method needs none, or it is tuned and not chosen yet."""
        teacher = self.search.chosen() if self.search else self.student.teacher
        return teacher and teacher.model_copy(update=of_seed(seed, self.replicate))

    def config(self, parameters: Mapping[str, float], seed: int) -> StudentConfig:
        """Return the configuration of a tuning trial (seed 0) or of a final run (other seeds; only these read test)."""
        values = {**self.fixed, **parameters}
        rate = {"learning_rate": values.pop("learning_rate")}
        changes = {
            "training": self.student.training.model_copy(update=rate),
            "distillation": self.student.distillation.model_copy(update=values),
            "teacher": self.teacher_config(seed),
        }
        return self.student.model_copy(update=changes | of_seed(seed, self.replicate))

    def finalist_config(self, parameters: Mapping[str, float], run: int) -> StudentConfig:
        """Return the configuration of a finalist's further run (from 1 on): a tuning trial with another seed."""
        seed = SEEDS_PER_REPLICATE * (self.replicate + 1) - run
        return self.config(parameters, TUNING_SEED).model_copy(update={"seed": seed})

    def parameters_of(self, config: StudentConfig) -> dict[str, float]:
        """Return the tuned values in the configuration of one of its trials: the inverse of `config`."""
        values = {"learning_rate": config.training.learning_rate, **config.distillation.model_dump()}
        return {name: float(values[name]) for name in self.ranges}

    def describe(self) -> RowRecord:
        """Make the record of what the row is."""
        data = {
            "path": self.student.data.path,
            "source": self.info.source,
            "fingerprint": self.info.fingerprint,
            "modalities": self.info.modalities,
            "classes": self.info.classes,
            "steps": self.info.steps,
        }
        return RowRecord.model_validate({"digest": self.digest, "identity": self.identity, "data": data})


def of_seed(seed: int, replicate: int) -> dict[str, Any]:
    """Return the keys of a configuration that a seed within a replicate decides."""
    return {"seed": SEEDS_PER_REPLICATE * replicate + seed, "evaluate_test": seed != TUNING_SEED}


def seed_within(seed: int) -> int:
    """The seed within its replicate, from the seed of a configuration."""
    return seed % SEEDS_PER_REPLICATE


def replicates_by_name(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows' replicates by name, in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    return found


def teacher_directories(row: Row) -> list[TrialDir]:
    """Return the directories of the teachers that a row needs, as far as is known now: tuning's, then each seed's."""
    configs = [row.teacher_config(seed) for seed in range(1, row.seeds + 1)]
    return [*tuning_teachers(row), *(row.root.teacher(identity(config)) for config in configs if config is not None)]


def tuning_teachers(row: Row) -> list[TrialDir]:
    """Return the directories of the teachers that tuning needs: one, or the candidates for it; none without teacher."""
    if row.search is not None:
        return list(row.search.candidates)
    config = row.teacher_config(TUNING_SEED)
    return [] if config is None else [row.root.teacher(identity(config))]


def expected_teachers(row: Row) -> list[TrialDir]:
    """Return `teacher_directories`, with stand-ins for those of the seeds that are not known yet."""
    known, base = teacher_directories(row), row.student.teacher
    if base is None or row.teacher_config(TUNING_SEED) is not None:
        return known
    configs = (base.model_copy(update=of_seed(seed, row.replicate)) for seed in range(1, row.seeds + 1))
    return [*known, *(row.root.teacher(identity(config)) for config in configs)]
