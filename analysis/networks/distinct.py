"""The networks of a study, each once: networks that differ only in their weights are one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect
from mmkd.config import StudentConfig, TeacherConfig, digest, from_json
from mmkd.data import DatasetInfo
from mmkd.distillation import load_method
from mmkd.errors import UserError
from mmkd.files import read_json
from mmkd.formatting import teacher_label
from mmkd.models.network import Network, build_teacher
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
    configs = [(row.title, _config(runs, row)) for row in collect(runs, study).rows]
    known = [(title, config) for title, config in configs if config is not None]
    if not known:
        raise UserError(f"study {study}: no trial has begun, so nothing describes its networks")
    teachers: dict[str, tuple[TeacherConfig, list[str]]] = {}
    by_key: dict[str, list[tuple[str, StudentConfig]]] = {}
    for title, config in known:
        by_key.setdefault(_student_key(config), []).append((title, config))
        if config.teacher is not None:
            teachers.setdefault(_teacher_key(config.teacher), (config.teacher, []))[1].append(title)
    students = [_student(members) for members in by_key.values()]
    repeated = Counter(student.label for student in students)
    return [
        *(_teacher(config, tuple(rows)) for config, rows in teachers.values()),
        *(s if repeated[s.label] == 1 else replace(s, label=f"{s.label} ({s.rows[0]})") for s in students),
    ]


def _config(runs: Runs, row: RowRuns) -> StudentConfig | None:
    """The configuration of one of the row's trials: their networks are equal."""
    for directory in pd.concat([row.final_runs, row.tuning])["directory"].dropna():
        path = TrialDir(runs.root / directory).config
        config = from_json(read_json(path), path)
        if isinstance(config, StudentConfig):
            return config
    return None


def _teacher_key(teacher: TeacherConfig) -> str:
    return digest([teacher.data.fingerprint, teacher.network.model_dump(), teacher.branch])


def _student_key(student: StudentConfig) -> str:
    proxies = load_method(student.distillation.method).proxies(student.distillation)
    network = student.network.model_dump()
    return digest([student.data.fingerprint, network, student.primary, student.pairing, proxies])


def _teacher(config: TeacherConfig, rows: tuple[str, ...]) -> Subject:
    info = open_data(config)
    network = build_teacher(info, config.network, config.branch)
    return Subject(teacher_label(config.branch, "Teacher"), "teacher", network, info.modalities, info, rows)


def _student(members: Sequence[tuple[str, StudentConfig]]) -> Subject:
    config = members[0][1]
    info = open_data(config)
    network, pairing = new_student(config, info)
    rows = tuple(title for title, _ in members)
    teacher = next((teacher_label(c.teacher.branch, "Teacher") for _, c in members if c.teacher is not None), None)
    return Subject(f"Student, pairing {pairing.name}", "student", network, pairing.inputs, info, rows, teacher)
