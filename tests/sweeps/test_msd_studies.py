"""The MSD studies: every one runs, they share their rows, and their student is smaller than the teacher."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmkd.data import read_info
from mmkd.models.network import build_student, build_teacher, count_parameters
from mmkd.models.pairings import resolve_pairing
from mmkd.results import Status, read_result
from mmkd.rundir import Root
from sweeps.launch import main
from sweeps.planning import Machine, Row, plan
from sweeps.study import PROFILES, find_study, load_profile, load_study

STUDIES = ["msd", "msd_uniform", "msd_population", "msd_instance", "msd_learned"]


def rows_of(name: str, data: Path, tmp_path: Path, profile: str = "auto") -> dict[str, Row]:
    study, info = load_study(find_study(name)), read_info(data)
    machine = Machine(info.path, threads=1, device="cpu")
    rows = plan(study, find_study(name), load_profile(profile, info.source)[1], info, Root(tmp_path), machine)
    return {row.name: row for row in rows}


def test_the_studies_run_and_a_row_of_two_of_them_is_trained_once(tmp_path: Path, tiny_data: Path) -> None:
    where = ["--data", str(tiny_data), "--root", str(tmp_path), "--cluster", "debug", "--device", "cpu"]
    budget = ["--trials", "1", "--seeds", "1", "--epochs", "1"]
    made = []
    for study in STUDIES:
        assert main(["--study", study, *where, *budget]) == 0
        made.append(len(list(tmp_path.glob("rows/*/*/*/result.h5"))))
    assert made == [12] * len(STUDIES)  # six rows, one trial and one confirming run each
    results = [read_result(path) for path in tmp_path.glob("rows/*/*/*/result.h5")]
    teachers = [read_result(path) for path in tmp_path.glob("teachers/*/result.h5")]
    assert {result.status for result in results + teachers} == {Status.COMPLETE}
    assert len({result.parameters for result in results}) == 1
    assert len(teachers) == 2
    assert results[0].parameters < teachers[0].parameters / 2


def test_all_rows_train_the_same_student_on_the_same_samples_under_the_teacher_of_other_studies(
    tmp_path: Path, tiny_data: Path
) -> None:
    rows = list(rows_of("msd", tiny_data, tmp_path).values())
    assert [row.distillation.method for row in rows] == ["no_kd", "kd", "msd", "msd", "msd", "msd"]
    assert {row.pairing for row in rows} == {"multimodal"}
    assert all(row.student == rows[0].student for row in rows)
    assert {(row.training.held_out, row.teacher_training.held_out) for row in rows} == {(0.1, 0.0)}
    usual = rows_of("kd", tiny_data, tmp_path)["kd"]
    assert all(row.teacher_config(0) == usual.teacher_config(0) for row in rows[1:])


@pytest.mark.parametrize("profile", sorted(path.stem for path in PROFILES.glob("*.toml")))
def test_the_student_is_smaller_than_the_teacher_of_every_profile(
    profile: str, tmp_path: Path, tiny_data: Path
) -> None:
    row, info = rows_of("msd", tiny_data, tmp_path, profile)["kd"], read_info(tiny_data)
    assert row.teacher is not None
    pairing = resolve_pairing(row.pairing, row.primary, info.modalities)
    student = build_student(info, row.student, row.primary, pairing)
    assert row.student.width < row.teacher.width
    assert row.student.layers < row.teacher.layers
    assert count_parameters(student) < count_parameters(build_teacher(info, row.teacher, row.branch)) / 2
