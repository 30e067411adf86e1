"""The MSD studies: every one runs, they share their rows, and their student is smaller than the teacher."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmkd.config import identity
from mmkd.data import read_info
from mmkd.models.network import build_student, build_teacher, count_parameters
from mmkd.models.pairings import resolve_pairing
from mmkd.result_file import Status, read_result
from mmkd.rundir import Root
from mmkd.trial import run_trial
from sweeps.planning import Machine, plan
from sweeps.profile_file import PROFILES, load_profile
from sweeps.rows import Row
from sweeps.study_file import find_study, load_study


def rows_of(name: str, data: Path, tmp_path: Path, profile: str = "auto") -> dict[str, Row]:
    study, info = load_study(find_study(name), [("training.epochs", 1)]), read_info(data)
    machine = Machine(info.path, threads=1, device="cpu")
    rows = plan(study, find_study(name), load_profile(profile, info.source)[1], info, Root(tmp_path), machine)
    return {row.name: row for row in rows}


def test_a_trial_of_every_row_runs_and_each_weightings_own_study_has_the_same_rows(
    tmp_path: Path, tiny_data: Path
) -> None:
    rows = rows_of("msd", tiny_data, tmp_path)
    for name, row in rows.items():
        config, teacher = row.config(row.default(), seed=0), row.teacher_config(0)
        tasks = [] if teacher is None else [(teacher, Root(tmp_path).teacher(identity(teacher)).path)]
        for task, directory in [*tasks, (config, row.directory.trial(0).path)]:
            directory.mkdir(parents=True, exist_ok=True)
            assert run_trial(task, directory) is Status.COMPLETE
        curves = read_result(row.directory.trial(0).result).curves
        assert ("train_weight_video" in curves) == (row.student.distillation.method == "msd")
        if row.student.distillation.method == "msd":
            own = rows_of(name, tiny_data, tmp_path)
            assert {r.digest for r in own.values()} == {rows["no_kd"].digest, row.digest}


def test_all_rows_train_the_same_student_on_the_same_samples_under_the_teacher_of_other_studies(
    tmp_path: Path, tiny_data: Path
) -> None:
    rows = list(rows_of("msd", tiny_data, tmp_path).values())
    assert [row.student.distillation.method for row in rows] == ["no_kd", "kd", "msd", "msd", "msd", "msd"]
    assert {row.student.pairing for row in rows} == {"multimodal"}
    assert all(row.student.network == rows[0].student.network for row in rows)
    assert {row.student.training.held_out for row in rows} == {0.1}
    assert {row.student.teacher.training.held_out for row in rows if row.student.teacher} == {0.0}
    usual = rows_of("kd", tiny_data, tmp_path)["kd"]
    assert all(row.teacher_config(0) == usual.teacher_config(0) for row in rows[1:])


@pytest.mark.parametrize("profile", sorted(path.stem for path in PROFILES.glob("*.toml")))
def test_the_student_is_smaller_than_the_teacher_of_every_profile(
    profile: str, tmp_path: Path, tiny_data: Path
) -> None:
    student, info = rows_of("msd", tiny_data, tmp_path, profile)["kd"].student, read_info(tiny_data)
    assert student.teacher is not None
    pairing = resolve_pairing(student.pairing, student.primary, info.modalities)
    small = build_student(info, student.network, student.primary, pairing)
    large = build_teacher(info, student.teacher.network, student.teacher.branch)
    assert student.network.width < student.teacher.network.width
    assert student.network.layers < student.teacher.network.layers
    assert count_parameters(small) < count_parameters(large) / 2
