"""Replicates of rows: planned, recorded, extended, shown and named."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from controlled import run
from fakes import FakeBackend
from launched import launched, planned

from mmkd.config import SplitSettings
from mmkd.data import choose_split, divide
from mmkd.errors import UserError
from mmkd.failures import Failure
from mmkd.find_trial import find_row
from mmkd.records import SplitRecord, read_record
from mmkd.rundir import Root
from slurm.backend import Job
from slurm.monitor import main as monitor
from sweeps.actions.archive import members
from sweeps.actions.dry_run import show_plan, show_splits
from sweeps.actions.estimate import estimates_of, left_of, show_estimate
from sweeps.actions.status import show_status
from sweeps.controller.tasks import teacher_task, tuning_task
from sweeps.launch import failures_of, main
from sweeps.launched_study import read_recorded
from sweeps.rows import Row, teacher_directories
from sweeps.study_file import load_study, parse_override

FOLDS = ("replicates=3", "splits.scheme=group-folds")
KD = """
[[rows]]
name = "kd"
method = "kd"
"""


@pytest.fixture
def rows(study_file: Path, tmp_path: Path) -> list[Row]:
    """Three replicates of a study of three rows, two of which have teachers."""
    study_file.write_text(study_file.read_text() + KD)
    return planned(study_file, tmp_path, *FOLDS)


def kind(job: Job) -> str:
    """`trials`, `confirm` or `teachers`."""
    return Path(job.command[3]).parent.name


def of_replicate(rows: list[Row], number: int) -> list[Row]:
    return [row for row in rows if row.replicate == number]


# --- plan and record


def test_rows_of_a_replicate_share_split_and_teachers_and_replicates_share_nothing(rows: list[Row]) -> None:
    assert [row.title for row in rows[2:5]] == ["kd", "no_kd r1", "crd r1"]
    for number in range(3):
        of_one = of_replicate(rows, number)
        assert len({row.student.split and row.student.split.digest for row in of_one}) == 1
        taught = [set(teacher_directories(row)) for row in of_one if row.student.teacher]
        assert taught[0] == taught[1] != set()
        assert all(config.split == row.student.split for row in of_one if (config := row.teacher_config(1)))
    assert len({row.digest for row in rows}) == 9
    assert len({row.student.split and row.student.split.digest for row in rows}) == 3
    teachers = [set(teacher_directories(row)) for row in rows if row.name == "kd"]
    assert len(set().union(*teachers)) == sum(map(len, teachers))
    assert teacher_task(of_replicate(rows, 2)[1], 1).label == "teacher r2 seed 1"


def test_replicates_on_the_files_own_parts_differ_in_their_seeds(study_file: Path, tmp_path: Path) -> None:
    rows = planned(study_file, tmp_path, "replicates=2")
    configs = [row.config(row.default(), 1) for row in rows if row.name == "no_kd"]
    assert [config.seed for config in configs] == [1, 10_001]
    assert len({row.info.fingerprint for row in rows}) == len({row.student.split for row in rows}) == 1


def test_resample_valid_keeps_the_test_part(study_file: Path, tmp_path: Path) -> None:
    rows = planned(study_file, tmp_path, "replicates=4", "splits.scheme=resample-valid")
    splits = [row.info.split for row in rows if row.name == "no_kd"]
    assert len({str(split and sorted(split.parts["test"].items())) for split in splits}) == 1
    assert len({str(split and sorted(split.parts["valid"].items())) for split in splits}) == 4


def test_a_study_is_recorded_with_each_replicate_and_its_split(study_file: Path, tmp_path: Path) -> None:
    study = launched(study_file, tmp_path, *FOLDS)
    assert [row.title for row in study.rows] == ["no_kd", "crd", "no_kd r1", "crd r1", "no_kd r2", "crd r2"]
    drawn = [read_record(path, SplitRecord) for path in sorted((study.root.path / "splits").iterdir())]
    assert {split.digest for split in drawn} == {
        row.student.split.digest for row in planned(study_file, tmp_path, *FOLDS) if row.student.split
    }
    archived = {path.parent.name for path in members(study)}
    assert "splits" in archived
    some = read_recorded(study.root, "tiny", ["crd"])
    assert [row.title for row in some.rows] == [row.title for row in study.rows], "the control is one of two rows"
    with pytest.raises(UserError, match=r"cdr.*did you mean crd|crd"):
        read_recorded(study.root, "tiny", ["cdr"])


def test_a_study_with_one_replicate_is_extended_and_keeps_it(study_file: Path, tmp_path: Path) -> None:
    launched(study_file, tmp_path)
    again = FakeBackend()
    study = launched(study_file, tmp_path, "replicates=3", backend=again)
    assert Counter(map(kind, again.jobs)) == {"trials": 12, "confirm": 8, "teachers": 6}, "of two replicates"
    assert all(len(row.runs()) == 5 for row in study.rows)
    more = FakeBackend()
    launched(study_file, tmp_path, "replicates=3", "defaults.trials=4", "defaults.seeds=3", backend=more)
    kinds = Counter(map(kind, more.jobs))
    assert (kinds["trials"], kinds["teachers"]) == (6, 3), "one more for each replicate"


def test_a_row_is_found_by_its_name_and_replicate(study_file: Path, tmp_path: Path) -> None:
    study = launched(study_file, tmp_path, *FOLDS)
    for row in study.rows:
        assert find_row(Path(row.title), study.root.path, "--trial") == row.directory or row.name == "no_kd"
        assert find_row(Path(row.title), study.root.path, "--trial", "tiny").name == row.directory.name


# --- what is shown


def test_the_plan_has_one_block_per_row_and_a_table_of_the_splits(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = load_study(study_file, [parse_override(text) for text in (*FOLDS, "replicates=8")])
    show_plan(study, planned(study_file, tmp_path, *FOLDS, "replicates=8"), Root(tmp_path), "small", "local", 2)
    said = capsys.readouterr().out
    assert said.count("row       ") == 2
    assert "8 replicates of 3 trials (random sampler); best by valid loss retrained on 2 fresh seeds" in said
    assert "teachers  24 (in each replicate one for tuning and one per seed), 0 trained" in said
    assert "splits    group-folds, replicate  " in said
    assert said.count("12 samples of s") == 6, "the names of valid's and test's only group, in three replicates"
    assert said.count("72 samples of 6 groups") == 3
    assert "and 5 more; --dry-run shows all" in said
    assert "warning" not in said


def test_a_part_that_lacks_a_class_is_warned_of(rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    infos = {row.replicate: row.info for row in rows if row.name == "kd"}
    infos[2] = replace(infos[2], class_counts={**infos[2].class_counts, "valid": (4, 0, 4)})
    show_splits(infos, "group-folds", 3)
    assert "warning   replicate 2: valid has no sample of b\n" in capsys.readouterr().out


def test_the_estimate_sums_a_rows_replicates(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launched(study_file, tmp_path)
    left = [left_of(row) for row in planned(study_file, tmp_path, "replicates=3")]
    show_estimate(left, estimates_of(left, Root(tmp_path / "runs"), FakeBackend()), 2, 0.0)
    said = capsys.readouterr().out
    assert "left      no_kd: 6 trials and 4 final runs in 2 replicates, of unknown length" in said
    assert "left      6 teachers, of unknown length" in said


def test_status_has_a_line_per_row_or_one_per_replicate(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launched(study_file, tmp_path, *FOLDS)
    wanted = [*FOLDS, "replicates=5"]
    study = launched(study_file, tmp_path, *wanted, stop=lambda: None, backend=Stops(after=4))
    capsys.readouterr()
    show_status(study)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("no_kd")]
    assert line.split()[:4] == ["no_kd", "3/5", "done", line.split()[3]]
    assert line.endswith(f"(mean of {line.split()[-1]}")
    show_status(study, each_replicate=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("no_kd")]
    assert [line.split("  ")[0] for line in lines] == ["no_kd", *(f"no_kd r{n}" for n in range(1, 5))]
    assert lines[0].split()[1:] == ["3/3", "0", "0", "0", "0", "2/2", "loss", "0.0000", "(trial", "0)"]


class Stops(FakeBackend):
    """Runs so many jobs and no more."""

    def __init__(self, after: int) -> None:
        super().__init__(lambda job, attempt: None if len(self.jobs) <= after else Failure.ERROR)


def test_the_monitor_has_a_line_per_row_or_one_per_replicate(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launched(study_file, tmp_path, *FOLDS)
    command = ["--root", str(tmp_path / "runs"), "--once"]
    capsys.readouterr()
    assert monitor(command) == 0
    said = capsys.readouterr().out
    assert "teachers 9/9" in said
    (line,) = [line for line in said.splitlines() if line.startswith("crd   ")]
    assert line.split()[:4] == ["crd", "3/3", "9/9", "6/6"]
    assert "mean of 3" in line
    assert monitor([*command, "--each-replicate"]) == 0
    assert "crd r2" in capsys.readouterr().out.partition("ROWS 6")[2].partition("ENDED LAST")[0]
    (tmp_path / "runs" / "studies" / "tiny.json").unlink()
    assert monitor(command) == 0
    assert "ROWS 2" in capsys.readouterr().out, "replicates of a row in no study are known by what they are"


def test_failures_and_exit_messages_name_the_replicates(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row for row in planned(study_file, tmp_path, *FOLDS) if row.name == "no_kd"]
    hopeless = {row.directory.path.name for row in rows[1:]}

    def fails(job: Job, attempt: int) -> Failure | None:
        return Failure.ERROR if any(f"{name}/trials/1" in job.command[3] for name in hopeless) else None

    backend = FakeBackend(fails)
    works = run(rows, Root(tmp_path / "runs"), backend)
    (said,) = failures_of(works, ended=True)
    assert said.startswith("row no_kd r1, r2: 1 trial failed (no retries left")
    assert tuning_task(rows[1], 2, rows[1].default()).label == "no_kd r1 trial 2"


def test_each_replicate_is_an_option_of_status_alone(study_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--each-replicate", "--cluster", "local"], ["--each-replicate", "--clean"]):
        assert main(["--study", str(study_file), *options]) == 2
        assert "--each-replicate: allowed only with --status" in capsys.readouterr().err


def test_all_splits_are_drawn_as_jobs_draw_theirs(rows: list[Row]) -> None:
    for row in rows:
        assert choose_split(row.info, SplitSettings(scheme="group-folds"), row.replicate) == row.student.split
        assert divide(row.info, row.student.split) == row.info
