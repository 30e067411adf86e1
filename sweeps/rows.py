"""Resolve a study file and a data set into rows: their identities, directories and trial configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mmkd.config import (
    ALGORITHM_VERSION,
    DataSource,
    Distillation,
    Network,
    StudentConfig,
    TeacherConfig,
    Training,
    digest,
    explain,
    identity,
)
from mmkd.data import DatasetInfo
from mmkd.distillation import complete, load_method
from mmkd.errors import UserError
from mmkd.models.pairings import modality_aliases, resolve_pairing
from mmkd.presets import PRESETS
from mmkd.records import RowRecord, as_written, differences, find_record
from mmkd.rundir import Root, RowDir, TrialDir
from sweeps.study_file import PaperFigures, Profile, Range, RowSpec, StudyFile, merge

M = TypeVar("M", bound=BaseModel)

TUNING_SEED = 0
"""Tuning trials and their teacher; final runs have the seeds 1, 2, ..."""


@dataclass(frozen=True)
class Machine:
    """Facts of the machine that go into configurations, but not into what a row is."""

    data_path: Path
    threads: int
    device: str


@dataclass(frozen=True)
class Row:
    """One row, resolved: `ranges` are tuned, `fixed` are not. `identity` excludes the budgets `trials` and `seeds`."""

    name: str
    label: str
    group: str | None
    paper: PaperFigures | None
    directory: RowDir
    identity: Mapping[str, Any]
    digest: str
    ranges: Mapping[str, Range]
    fixed: Mapping[str, float]
    sampler: str
    trials: int
    seeds: int
    selection: str
    pruner: str
    info: DatasetInfo
    machine: Machine
    distillation: Distillation
    primary: str
    pairing: str
    branch: str | None
    student: Network
    training: Training
    teacher: Network | None
    teacher_training: Training

    def default(self) -> dict[str, float]:
        """The documented default, trial 0: each range's own `default`, else the usual value brought into the range."""
        usual = {"learning_rate": 1e-3, "alpha": 1.0, "beta": 1.0}
        usual["temperature"] = load_method(self.distillation.method).usual_temperature
        return {
            name: min(max(usual[name], r.low), r.high) if r.default is None else r.default
            for name, r in self.ranges.items()
        }

    def teacher_config(self, seed: int) -> TeacherConfig | None:
        """Return the teacher of a seed; None if the method needs none."""
        if self.teacher is None:
            return None
        return TeacherConfig(
            **self._common(seed), network=self.teacher, training=self.teacher_training, branch=self.branch
        )

    def config(self, parameters: Mapping[str, float], seed: int) -> StudentConfig:
        """Return the configuration of a tuning trial (seed 0) or of a final run (other seeds; only these read test)."""
        values = {**self.fixed, **parameters}
        rate = {"learning_rate": values.pop("learning_rate")}
        return StudentConfig(
            **self._common(seed),
            network=self.student,
            training=self.training.model_copy(update=rate),
            primary=self.primary,
            pairing=self.pairing,
            distillation=self.distillation.model_copy(update=values),
            teacher=self.teacher_config(seed),
        )

    def parameters_of(self, config: StudentConfig) -> dict[str, float]:
        """Return the tuned values in the configuration of one of its trials: the inverse of `config`."""
        values = {"learning_rate": config.training.learning_rate, **config.distillation.model_dump()}
        return {name: float(values[name]) for name in self.ranges}

    def _common(self, seed: int) -> dict[str, Any]:
        return {
            "data": DataSource(path=str(self.machine.data_path), fingerprint=self.info.fingerprint),
            "seed": seed,
            "evaluate_test": seed != TUNING_SEED,
            "threads": self.machine.threads,
            "device": self.machine.device,
        }

    def describe(self) -> RowRecord:
        """Make the record of what the row is."""
        data = {
            "path": str(self.machine.data_path),
            "source": self.info.source,
            "fingerprint": self.info.fingerprint,
            "modalities": self.info.modalities,
            "classes": self.info.classes,
        }
        return RowRecord.model_validate({"digest": self.digest, "identity": self.identity, "data": data})


def plan(
    study: StudyFile, origin: Path | str, profile: Profile, info: DatasetInfo, root: Root, machine: Machine
) -> list[Row]:
    """The rows of a study on a data set.

    Raises:
        UserError: a row asks for what the data, the method or the networks do not offer.
    """
    return [_plan_row(study, origin, spec, profile, info, root, machine) for spec in study.rows]


def _plan_row(
    study: StudyFile,
    origin: Path | str,
    spec: RowSpec,
    profile: Profile,
    info: DatasetInfo,
    root: Root,
    machine: Machine,
) -> Row:
    where = f"{origin}: row {spec.name}"
    defaults = study.defaults
    try:
        pairing = resolve_pairing(spec.pairing or defaults.pairing, study.primary, info.modalities)
        distillation = complete(Distillation(method=spec.method, level=spec.level, settings=spec.settings))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    method = load_method(spec.method)
    tables = {
        table: merge(getattr(profile, table), getattr(study, table), getattr(spec, table))
        for table in ("teacher", "student", "training", "teacher_training")
    }
    # The student of pairing `complete` is built as the teacher, width included, but for its inputs.
    student_table = merge(tables["teacher"], spec.student) if pairing.name == "complete" else tables["student"]
    student = _build(Network, _with_preset(student_table, where), f"{where}: student")
    training = _build(Training, tables["training"], f"{where}: training")
    teacher_table = merge(tables["training"], tables["teacher_training"])
    teacher_training = _build(Training, teacher_table, f"{where}: teacher_training")
    teacher = None
    if method.needs_teacher:
        teacher = _build(Network, _with_preset(tables["teacher"], where), f"{where}: teacher")
    ranges, fixed = _space(spec, defaults.space.model_dump(exclude_none=True), method.tunes, where, training)
    selection = spec.selection or defaults.selection
    sampler = spec.sampler or defaults.sampler
    pruner = spec.pruner or defaults.pruner
    identity = {
        "algorithm": ALGORITHM_VERSION,
        "data": info.fingerprint,
        "primary": study.primary,
        "pairing": pairing.name,
        "method": spec.method,
        "level": distillation.level,
        "settings": distillation.settings,
        "space": {name: r.model_dump(exclude={"default"}) for name, r in ranges.items()},
        "fixed": fixed,
        "sampler": sampler,
        "training": training.model_dump(mode="json", exclude={"learning_rate"}),
        "student": student.model_dump(mode="json"),
        "teacher": teacher
        and {
            "branch": pairing.branch,
            "network": teacher.model_dump(mode="json"),
            "training": teacher_training.model_dump(mode="json"),
        },
        "selection": selection,
    }
    if pruner != "none":
        identity["pruner"] = pruner
    mark = digest(identity)
    slug = "-".join(part for part in (spec.method, distillation.level, pairing.name, study.primary) if part)
    return Row(
        name=spec.name,
        label=_named(spec.label or spec.name, study.primary, info.modalities),
        group=spec.group and _named(spec.group, study.primary, info.modalities),
        paper=spec.paper,
        directory=root.row(slug, mark),
        identity=identity,
        digest=mark,
        ranges=ranges,
        fixed=fixed,
        sampler=sampler,
        trials=spec.trials or defaults.trials,
        seeds=spec.seeds or defaults.seeds,
        selection=selection,
        pruner=pruner,
        info=info,
        machine=machine,
        distillation=distillation,
        primary=study.primary,
        pairing=pairing.name,
        branch=pairing.branch,
        student=student,
        training=training,
        teacher=teacher,
        teacher_training=teacher_training,
    )


def _space(
    spec: RowSpec, shared: Mapping[str, Any], tunes: tuple[str, ...], where: str, training: Training
) -> tuple[dict[str, Range], dict[str, float]]:
    """Ranges and fixed values of a row: its own, else those shared by all rows, as far as its method has them."""
    own = spec.space.model_dump(exclude_none=True)
    allowed = ("learning_rate", *tunes)
    for name in own:
        if name not in allowed:
            raise UserError(f"{where}: space.{name}: method {spec.method} has none (it tunes {', '.join(allowed)})")
    values = {name: own.get(name, shared.get(name)) for name in allowed}
    ranges = {name: Range.model_validate(value) for name, value in values.items() if isinstance(value, Mapping)}
    fixed = {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
    if "learning_rate" not in {*ranges, *fixed}:
        fixed["learning_rate"] = training.learning_rate
    return ranges, fixed


def _named(text: str, primary: str, modalities: Sequence[str]) -> str:
    """`text` with {primary}, {other1}, ... replaced by the modalities' names."""
    for alias, modality in modality_aliases(primary, modalities).items():
        text = text.replace(f"{{{alias}}}", modality)
    return text


def _with_preset(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A network's table with its `preset`, if it names one, under it."""
    own = dict(table)
    preset = own.pop("preset", None)
    if preset is None:
        return own
    if preset not in PRESETS:
        raise UserError(f"{where}: unknown preset {preset!r} (choices: {', '.join(PRESETS)})")
    return merge(PRESETS[preset], own)


def _build(model: type[M], table: Mapping[str, Any], where: str) -> M:
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        raise UserError(explain(error, where)) from None


def nearest_neighbour(row: Row, root: Root) -> tuple[RowDir, list[str]] | None:
    """Find the row of the same method, data and primary that differs least: `space.beta.high: 0.5, there 1.0`."""
    found = []
    for other in root.rows():
        record = None if other.path == row.directory.path else find_record(other.row, RowRecord)
        theirs = {} if record is None else as_written(record.identity)
        if all(theirs.get(key) == row.identity[key] for key in ("method", "data", "primary")):
            differing = sorted(differences([row.identity, theirs]).items())
            found.append((other, [f"{key}: {mine!r}, there {there!r}" for key, (mine, there) in differing]))
    return min(found, key=lambda pair: len(pair[1])) if found else None


def teacher_directories(row: Row, root: Root) -> list[TrialDir]:
    """Return the directories of the teachers that a row needs: tuning's first, then each seed's."""
    configs = [row.teacher_config(seed) for seed in range(TUNING_SEED, row.seeds + 1)]
    return [root.teacher(identity(config)) for config in configs if config is not None]
