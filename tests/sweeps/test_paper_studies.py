"""The studies that come with mmkd, on tiny data: each in every pairing, and Table 1 from end to end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import analysis
from mmkd.config import identity
from mmkd.data import DatasetInfo, read_info
from mmkd.result_file import Status, read_result
from mmkd.rundir import Root
from mmkd.training.trained_network import new_student
from mmkd.trial import run_trial
from sweeps.controller.tasks import Task, teacher_task, write_config
from sweeps.launch import main
from sweeps.planning import Machine, plan
from sweeps.profile_file import load_profile
from sweeps.rows import Row
from sweeps.study_file import find_study, load_study, parse_override

TINY = ["teacher.width=8", "teacher.heads=2", "teacher.layers=1", "student.width=8", "student.heads=2"]
TINY += ["student.layers=1", "training.epochs=1", "training.batch_size=16"]
METHODS = ["no_kd", "kd", "crd_final", "crd_penultimate", "crd_post_attention", "crd_attention", "edam_down", "edam_up"]
PAIRINGS = ["complete", "others", "primary", "other1", "other2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return Root(tmp_path_factory.mktemp("runs"))


def planned(name: str, pairing: str, data: Path, root: Root) -> Row:
    """The row of a one-method study that is its method's, tiny."""
    origin = find_study(name)
    changes = [*TINY, f"defaults.pairing={pairing}", f"data={data}"]
    study = load_study(origin, [parse_override(c) for c in changes])
    info = read_info(data)
    profile = load_profile("auto", info.source)[1]
    rows = plan(study, origin, profile, info, root, Machine(data, threads=1, device="cpu"))
    return next(row for row in rows if row.name == name)


def _map_shapes(row: Row, info: DatasetInfo) -> dict[str, tuple[int, int]]:
    student, pairing = new_student(row.student, info)
    return {name: student.map_shape(name) for name in pairing.distilled}


def run(task: Task) -> Status:
    write_config(task)
    return run_trial(task.config, task.directory.path)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [{"video": 12, "audio": 20, "language": 8}, {"video": 8, "audio": 8, "language": 8}])
def test_each_row_of_table_1_is_compared_with_a_student_of_its_own_network(
    tiny_data: Path, tmp_path: Path, steps: dict[str, int]
) -> None:
    info = replace(read_info(tiny_data), steps=steps)
    origin = find_study("table1")
    study = load_study(origin)
    profile = load_profile("auto", info.source)[1]
    rows = plan(study, origin, profile, info, Root(tmp_path), Machine(tiny_data, threads=1, device="cpu"))
    weights = {
        row.name: {name: value.shape for name, value in new_student(row.student, info)[0].state_dict().items()}
        for row in rows
    }
    lengths = {row.name: _map_shapes(row, info) for row in rows}
    control = {row.name: row.control or "no_kd" for row in rows}
    methods = {row.name: row.student.distillation.method for row in rows}
    taught = [name for name, method in methods.items() if method != "no_kd"]
    assert len(taught) == 14
    for name in taught:
        assert methods[control[name]] == "no_kd"
        assert weights[control[name]] == weights[name]
        assert lengths[control[name]] == lengths[name]
    assert ("no_kd_up" in methods) is (len(set(steps.values())) > 1), "else EDAM-T's student is that of no_kd"


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("name", METHODS)
def test_every_study_runs_in_every_pairing(name: str, pairing: str, tiny_data: Path, root: Root) -> None:
    row = planned(name, pairing, tiny_data, root)
    if row.student.teacher is not None:
        assert run(teacher_task(row, 0)) is Status.COMPLETE
    config = row.config(row.default(), seed=0)
    task = Task("t", "t", "tuning", row.directory.trial(0), config)
    assert run(task) is Status.COMPLETE
    result = read_result(task.directory.result)
    if row.student.teacher is not None:
        assert config.teacher is not None
        assert root.teacher(identity(config.teacher)).result.exists()
        assert result.curves["train_distillation"][0] != 0


def test_table_1_runs_from_end_to_end(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "runs"
    where = ["--study", "table1", "--as", "table1", "--data", str(tiny_data), "--root", str(root), "--cluster", "debug"]
    budget = ["--trials", "1", "--seeds", "1", "--epochs", "1", "--device", "cpu"]
    assert main([*where, *budget, *(f"--set={change}" for change in TINY[:-2])]) == 0
    table = analysis.table(analysis.load(root), "table1")
    titles = [section.title for section in table.sections]
    names = [[row.label for row in section.rows] for section in table.sections]
    assert titles[1:] == [
        "KD from the complete teacher",
        "KD from the video branch",
        "KD from the language branch",
        "KD from the audio branch",
        "KD from the language and audio branches of the complete teacher",
        "Reference models",
    ]
    assert [len(rows) for rows in names[:-1]] == [1, 3, 5, 4, 4, 8], (
        "one, then a teacher, the control of its students and these"
    )
    complete = root.glob("teachers/*/config.json")
    assert sum(json.loads(p.read_text())["branch"] is None for p in complete) == 2, "of seeds 0 and 1, shared"
    assert "failed" not in capsys.readouterr().err
