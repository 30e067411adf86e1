"""The networks of a study, each once. Networks that differ only in their weights are one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect
from mmkd.config import StudentConfig, TeacherConfig, digest, from_json
from mmkd.data import DatasetInfo
from mmkd.distillation import load_method
from mmkd.errors import UserError
from mmkd.files import read_json
from mmkd.formatting import teacher_label
from mmkd.models.network import Network, build_teacher
from mmkd.records import read_study
from mmkd.rundir import TrialDir
from mmkd.training.trained_network import new_student, open_data


@dataclass(frozen=True)
class Subject:
    """A teacher's or a student's network, untrained.

    `inputs` are the modalities that it is given, `rows` the titles of the study's rows that use it, `teacher` the label
    of the teacher that it is measured against: that of the first of its rows that has one.
    """

    label: str
    kind: Literal["teacher", "student"]
    network: Network
    inputs: tuple[str, ...]
    info: DatasetInfo
    rows: tuple[str, ...]
    teacher: str | None = None


def subjects(runs: Runs, study: str) -> list[Subject]:
    """Teachers first, then students, in the study's order.

    Raises:
        UserError: no such study; no trial of it has begun; its data are gone or have changed.
    """
    configs = [(row, _config(runs, row)) for row in collect(runs, read_study(runs.root, study))]
    known = [(row, config) for row, config in configs if config is not None]
    if not known:
        raise UserError(f"study {study}: no trial has begun, so nothing says what its networks are")
    teachers = {_key(c.teacher): c.teacher for _, c in known if c.teacher is not None}
    students: dict[str, list[tuple[RowRuns, StudentConfig]]] = {}
    for row, config in known:
        students.setdefault(_student_key(config), []).append((row, config))
    return [
        *(_teacher(config, known) for config in teachers.values()),
        *_distinct([_student(members) for members in students.values()]),
    ]


def _config(runs: Runs, row: RowRuns) -> StudentConfig | None:
    """The configuration of one of the row's trials: their networks are alike."""
    directories = [*row.final_runs["directory"].dropna(), *row.tuning["directory"].dropna()]
    for directory in directories:
        path: Path = TrialDir(runs.root / directory).config
        config = from_json(read_json(path), path)
        if isinstance(config, StudentConfig):
            return config
    return None


def _key(teacher: TeacherConfig) -> str:
    return digest([teacher.data.fingerprint, teacher.network.model_dump(), teacher.branch])


def _student_key(student: StudentConfig) -> str:
    return digest(
        [
            student.data.fingerprint,
            student.network.model_dump(),
            student.primary,
            student.pairing,
            load_method(student.distillation.method).proxies(student.distillation),
        ]
    )


def _teacher(config: TeacherConfig, known: Sequence[tuple[RowRuns, StudentConfig]]) -> Subject:
    info = open_data(config)
    rows = tuple(row.title for row, c in known if c.teacher is not None and _key(c.teacher) == _key(config))
    network = build_teacher(info, config.network, config.branch)
    return Subject(teacher_label(config.branch, "Teacher"), "teacher", network, info.modalities, info, rows)


def _student(members: Sequence[tuple[RowRuns, StudentConfig]]) -> Subject:
    config = members[0][1]
    info = open_data(config)
    network, pairing = new_student(config, info)
    teachers = [teacher_label(c.teacher.branch, "Teacher") for _, c in members if c.teacher is not None]
    return Subject(
        f"Student, pairing {pairing.name}",
        "student",
        network,
        pairing.inputs,
        info,
        tuple(row.title for row, _ in members),
        teachers[0] if teachers else None,
    )


def _distinct(students: Sequence[Subject]) -> Iterator[Subject]:
    """Students whose labels are equal get the first of their rows in it."""
    labels = [student.label for student in students]
    for student in students:
        alone = labels.count(student.label) == 1
        yield student if alone else replace(student, label=f"{student.label} ({student.rows[0]})")
