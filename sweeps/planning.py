"""Resolve a study file and a data set into rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mmkd.config import (
    DataSource,
    Distillation,
    DrawnSplit,
    Network,
    StudentConfig,
    TeacherConfig,
    Training,
    identity,
    recipe_digest,
)
from mmkd.data import DatasetInfo
from mmkd.data.splits import draw_splits
from mmkd.distillation.facts import MethodFacts, facts_of, kept_facts
from mmkd.errors import UserError
from mmkd.models.pairings import Pairing, modality_aliases, proxies_differ, resolve_pairing
from mmkd.presets import PRESETS
from mmkd.rundir import Root
from mmkd.schema import explain
from sweeps.profile_file import Profile
from sweeps.rows import TUNING_SEED, Row, of_seed
from sweeps.search_space import Range
from sweeps.study_file import RowSpec, StudyFile, merge
from sweeps.teacher_search import TeacherSearch
from sweeps.teacher_tuning import TeacherTuning

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Machine:
    """Facts of the machine that go into configurations, but not into what a row is."""

    data_path: Path
    threads: int
    device: str


def plan(
    study: StudyFile, origin: Path | str, profile: Profile, info: DatasetInfo, root: Root, machine: Machine
) -> list[Row]:
    """The rows of a study on a data set: those of the first replicate, then those of the next.

    Raises:
        UserError: a row asks for what the data, the method or the networks do not offer; or the data cannot be split.
    """
    planner = _Planner(study, profile, info, root, machine, kept_facts(root.methods))
    rows = [planner.row(spec, f"{origin}: row {spec.name}") for spec in study.rows]
    rows = _each_once(rows, study.control, origin)
    tuning = _build(TeacherTuning, merge(profile.teacher_tuning, study.teacher_tuning), f"{origin}: teacher_tuning")
    splits = draw_splits(info, study.splits, study.replicates)
    planned = [_replicate(row, number, *split) for number, split in enumerate(splits) for row in rows]
    return _tune_teachers(planned, tuning, study.defaults.selection) if tuning.trials else planned


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


def _tune_teachers(rows: Iterable[Row], tuning: TeacherTuning, selection: str) -> list[Row]:
    """The rows with a search for their teachers; rows of one replicate with equal teachers share it."""
    searches: dict[str, TeacherSearch] = {}
    tuned = []
    for row in rows:
        base = row.student.teacher
        if base is None:
            tuned.append(row)
            continue
        recipe = recipe_digest(base.data.fingerprint, base.model_dump(mode="json"))
        base = base.model_copy(update={"tuned_from": recipe, **of_seed(TUNING_SEED, row.replicate)})
        search = searches.setdefault(identity(base), TeacherSearch(row.root, base, tuning, selection, row.replicate))
        student = row.student.model_copy(update={"teacher": base})
        tuned.append(replace(row, student=student, search=search))
    return tuned


@dataclass(frozen=True)
class _Planner:
    """Facts that all rows of a study share."""

    study: StudyFile
    profile: Profile
    info: DatasetInfo
    root: Root
    machine: Machine
    methods: tuple[MethodFacts, ...]

    def row(self, spec: RowSpec, where: str) -> Row:
        """Resolve a row; `where` begins the messages of errors."""
        defaults = self.study.defaults
        asked = Distillation(method=spec.method, level=spec.level, settings=spec.settings)
        try:
            pairing = resolve_pairing(spec.pairing or defaults.pairing, self.study.primary, self.info.modalities)
            method = facts_of(asked, self.methods)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        student = self._student(spec, pairing, method, where)
        ranges, fixed = _space(spec, method, defaults.space.model_dump(exclude_none=True), where, student.training)
        return Row(
            name=spec.name,
            label=_named(spec.label or spec.name, self.study.primary, self.info.modalities),
            group=spec.group and _named(spec.group, self.study.primary, self.info.modalities),
            paper=spec.paper,
            root=self.root,
            info=self.info,
            student=student,
            method=method,
            ranges=ranges,
            fixed=fixed,
            sampler=spec.sampler or defaults.sampler,
            trials=spec.trials or defaults.trials,
            seeds=spec.seeds or defaults.seeds,
            selection=spec.selection or defaults.selection,
            pruner=spec.pruner or defaults.pruner,
            control=spec.control,
            finalists=self.study.finalists,
        )

    def _student(self, spec: RowSpec, pairing: Pairing, method: MethodFacts, where: str) -> StudentConfig:
        """The configuration of a row's student, with its teacher's, for tuning; weights have their defaults."""
        tables = {
            table: merge(getattr(self.profile, table), getattr(self.study, table), getattr(spec, table))
            for table in ("teacher", "student", "training", "teacher_training")
        }
        # The student of pairing `complete` is built as the teacher, width included, but for its inputs.
        student_table = merge(tables["teacher"], spec.student) if pairing.name == "complete" else tables["student"]
        network = _build(Network, _with_preset(student_table, where), f"{where}: student")
        training = _build(Training, tables["training"], f"{where}: training")
        teacher_table = merge(tables["training"], tables["teacher_training"])
        teacher_training = _build(Training, teacher_table, f"{where}: teacher_training")
        common: dict[str, Any] = {
            "data": DataSource(path=str(self.machine.data_path), fingerprint=self.info.fingerprint),
            "threads": self.machine.threads,
            "device": self.machine.device,
            **of_seed(TUNING_SEED, 0),
        }
        distillation, teacher = method.distillation, None
        if spec.method == "no_kd" and not proxies_differ(pairing, self.study.primary, self.info.steps):
            distillation = distillation.model_copy(update={"settings": {}})  # its only setting changes nothing here
        if method.needs_teacher:
            teachers = _build(Network, _with_preset(tables["teacher"], where), f"{where}: teacher")
            teacher = TeacherConfig(**common, network=teachers, training=teacher_training, branch=pairing.branch)
        return StudentConfig(
            **common,
            network=network,
            training=training,
            primary=self.study.primary,
            pairing=pairing.name,
            distillation=distillation,
            teacher=teacher,
        )


def _space(
    spec: RowSpec, method: MethodFacts, shared: Mapping[str, Any], where: str, training: Training
) -> tuple[dict[str, Range], dict[str, float]]:
    """Ranges and fixed values of a row: its own, else those shared by all rows, as far as its method has them."""
    own = spec.space.model_dump(exclude_none=True)
    allowed = ("learning_rate", *method.tunes)
    for name in own:
        if name not in allowed:
            raise UserError(f"{where}: space.{name}: method {spec.method} has none (it tunes {', '.join(allowed)})")
    values = {name: own.get(name, shared.get(name)) for name in allowed}
    ranges = {name: Range.model_validate(value) for name, value in values.items() if isinstance(value, Mapping)}
    fixed = {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
    if "learning_rate" not in {*ranges, *fixed}:
        fixed["learning_rate"] = training.learning_rate
    usual, default = method.usual_temperature, Distillation.model_fields["temperature"].default
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
