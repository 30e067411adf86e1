"""Resolve a study file and a data set into rows: their identities, directories and trial configurations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mmkd.config import (
    ALGORITHM_VERSION,
    SEEDS_PER_REPLICATE,
    DataSource,
    Distillation,
    DrawnSplit,
    Network,
    StudentConfig,
    TeacherConfig,
    Training,
    digest,
    identity,
)
from mmkd.data import DatasetInfo
from mmkd.data.splits import draw_splits
from mmkd.distillation import complete, load_method
from mmkd.errors import UserError
from mmkd.formatting import replicate_title
from mmkd.models.pairings import modality_aliases, proxies_differ, resolve_pairing
from mmkd.presets import PRESETS
from mmkd.records import RowRecord
from mmkd.rundir import Root, RowDir, TrialDir
from mmkd.schema import explain
from sweeps.profile_file import Profile
from sweeps.study_file import PaperFigures, Range, RowSpec, StudyFile, merge

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
    """One replicate of a row, resolved: `ranges` are tuned, `fixed` are not.

    `student` is the configuration of its tuning trials, except for these; it contains the teacher's. `info` describes
    the data with the parts of the replicate's split. Rows of one replicate share their teachers.
    """

    name: str
    label: str
    group: str | None
    paper: PaperFigures | None
    root: Root
    info: DatasetInfo
    student: StudentConfig
    ranges: Mapping[str, Range]
    fixed: Mapping[str, float]
    sampler: str
    trials: int
    seeds: int
    selection: str
    pruner: str
    replicate: int = 0
    control: str | None = None
    """The row that it is compared with; None: the study's control."""

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
        return {**facts, **drawn, **number, **({} if self.pruner == "none" else {"pruner": self.pruner})}

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
        usual = {"learning_rate": 1e-3, "alpha": 1.0, "beta": 1.0}
        usual["temperature"] = load_method(self.student.distillation.method).usual_temperature
        return {
            name: min(max(usual[name], r.low), r.high) if r.default is None else r.default
            for name, r in self.ranges.items()
        }

    def teacher_config(self, seed: int) -> TeacherConfig | None:
        """Return the teacher of a seed; None if the method needs none."""
        return self.student.teacher and self.student.teacher.model_copy(update=_of_seed(seed, self.replicate))

    def config(self, parameters: Mapping[str, float], seed: int) -> StudentConfig:
        """Return the configuration of a tuning trial (seed 0) or of a final run (other seeds; only these read test)."""
        values = {**self.fixed, **parameters}
        rate = {"learning_rate": values.pop("learning_rate")}
        changes = {
            "training": self.student.training.model_copy(update=rate),
            "distillation": self.student.distillation.model_copy(update=values),
            "teacher": self.teacher_config(seed),
        }
        return self.student.model_copy(update=changes | _of_seed(seed, self.replicate))

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


def _of_seed(seed: int, replicate: int) -> dict[str, Any]:
    return {"seed": SEEDS_PER_REPLICATE * replicate + seed, "evaluate_test": seed != TUNING_SEED}


def seed_within(seed: int) -> int:
    """The seed within its replicate, from the seed of a configuration."""
    return seed % SEEDS_PER_REPLICATE


def plan(
    study: StudyFile, origin: Path | str, profile: Profile, info: DatasetInfo, root: Root, machine: Machine
) -> list[Row]:
    """The rows of a study on a data set: those of the first replicate, then those of the next.

    Raises:
        UserError: a row asks for what the data, the method or the networks do not offer; or the data cannot be split.
    """
    rows = [_plan_row(study, spec, profile, info, root, machine, f"{origin}: row {spec.name}") for spec in study.rows]
    rows = _each_once(rows, study.control, origin)
    splits = draw_splits(info, study.splits, study.replicates)
    return [_replicate(row, number, *split) for number, split in enumerate(splits) for row in rows]


def _each_once(rows: Sequence[Row], control: str | None, origin: Path | str) -> list[Row]:
    """Leave out matched controls that on these data are the same row as another, which takes their place.

    Raises:
        UserError: two other rows are the same.
    """
    matched = {row.control for row in rows}
    kept: dict[str, Row] = {}
    instead: dict[str | None, str] = {}
    for row in sorted(rows, key=lambda row: row.name != control):
        same = kept.setdefault(row.digest, row)
        if same is row:
            continue
        if row.name not in matched:
            raise UserError(
                f"{origin}: rows {same.name} and {row.name} are the same, but for label and budget; remove one"
            )
        instead[row.name] = same.name
    return [replace(row, control=instead.get(row.control, row.control)) for row in rows if row.name not in instead]


def _replicate(row: Row, number: int, split: DrawnSplit | None, divided: DatasetInfo) -> Row:
    """The row as the replicate of that number, on its split."""
    teacher = row.student.teacher and row.student.teacher.model_copy(update={"split": split})
    student = row.student.model_copy(update={"split": split, "teacher": teacher})
    return replace(row, replicate=number, student=student, info=divided)


def _plan_row(
    study: StudyFile, spec: RowSpec, profile: Profile, info: DatasetInfo, root: Root, machine: Machine, where: str
) -> Row:
    defaults = study.defaults
    student = _student(study, spec, profile, info, machine, where)
    ranges, fixed = _space(spec, defaults.space.model_dump(exclude_none=True), where, student.training)
    return Row(
        name=spec.name,
        label=_named(spec.label or spec.name, study.primary, info.modalities),
        group=spec.group and _named(spec.group, study.primary, info.modalities),
        paper=spec.paper,
        root=root,
        info=info,
        student=student,
        ranges=ranges,
        fixed=fixed,
        sampler=spec.sampler or defaults.sampler,
        trials=spec.trials or defaults.trials,
        seeds=spec.seeds or defaults.seeds,
        selection=spec.selection or defaults.selection,
        pruner=spec.pruner or defaults.pruner,
        control=spec.control,
    )


def _student(
    study: StudyFile, spec: RowSpec, profile: Profile, info: DatasetInfo, machine: Machine, where: str
) -> StudentConfig:
    """The configuration of a row's student, with its teacher's, for tuning; weights have their defaults."""
    try:
        pairing = resolve_pairing(spec.pairing or study.defaults.pairing, study.primary, info.modalities)
        distillation = complete(Distillation(method=spec.method, level=spec.level, settings=spec.settings))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if spec.method == "no_kd" and not proxies_differ(pairing, study.primary, info.steps):
        distillation = distillation.model_copy(update={"settings": {}})  # its only setting changes nothing here
    tables = {
        table: merge(getattr(profile, table), getattr(study, table), getattr(spec, table))
        for table in ("teacher", "student", "training", "teacher_training")
    }
    # The student of pairing `complete` is built as the teacher, width included, but for its inputs.
    student_table = merge(tables["teacher"], spec.student) if pairing.name == "complete" else tables["student"]
    network = _build(Network, _with_preset(student_table, where), f"{where}: student")
    training = _build(Training, tables["training"], f"{where}: training")
    teacher_table = merge(tables["training"], tables["teacher_training"])
    teacher_training = _build(Training, teacher_table, f"{where}: teacher_training")
    common: dict[str, Any] = {
        "data": DataSource(path=str(machine.data_path), fingerprint=info.fingerprint),
        "threads": machine.threads,
        "device": machine.device,
        **_of_seed(TUNING_SEED, 0),
    }
    teacher = None
    if load_method(spec.method).needs_teacher:
        teachers = _build(Network, _with_preset(tables["teacher"], where), f"{where}: teacher")
        teacher = TeacherConfig(**common, network=teachers, training=teacher_training, branch=pairing.branch)
    return StudentConfig(
        **common,
        network=network,
        training=training,
        primary=study.primary,
        pairing=pairing.name,
        distillation=distillation,
        teacher=teacher,
    )


def _space(
    spec: RowSpec, shared: Mapping[str, Any], where: str, training: Training
) -> tuple[dict[str, Range], dict[str, float]]:
    """Ranges and fixed values of a row: its own, else those shared by all rows, as far as its method has them."""
    own = spec.space.model_dump(exclude_none=True)
    allowed = ("learning_rate", *load_method(spec.method).tunes)
    for name in own:
        if name not in allowed:
            raise UserError(f"{where}: space.{name}: method {spec.method} has none (it tunes {', '.join(allowed)})")
    values = {name: own.get(name, shared.get(name)) for name in allowed}
    ranges = {name: Range.model_validate(value) for name, value in values.items() if isinstance(value, Mapping)}
    fixed = {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
    if "learning_rate" not in {*ranges, *fixed}:
        fixed["learning_rate"] = training.learning_rate
    usual, default = load_method(spec.method).usual_temperature, Distillation.model_fields["temperature"].default
    if "temperature" in allowed and "temperature" not in {*ranges, *fixed} and usual != default:
        fixed["temperature"] = usual
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


def replicates_by_name(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows' replicates by name, in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    return found


def teacher_directories(row: Row) -> list[TrialDir]:
    """Return the directories of the teachers that a row needs: tuning's first, then each seed's."""
    configs = [row.teacher_config(seed) for seed in range(TUNING_SEED, row.seeds + 1)]
    return [row.root.teacher(identity(config)) for config in configs if config is not None]
