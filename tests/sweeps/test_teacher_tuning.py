"""Tuned teachers: planned, chosen once, shared by the rows of a replicate, and counted."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from controlled import rows_of
from fakes import FakeBackend
from launched import after, launched, planned

import analysis
from analysis.doctor import examine
from mmkd.config import DataSource, from_json
from mmkd.errors import UserError
from mmkd.failures import Failure
from mmkd.files import read_json
from mmkd.records import TeacherChoice, read_record
from mmkd.rundir import TrialDir
from slurm.backend import Job
from slurm.monitor import main as monitor
from sweeps.actions.archive import members
from sweeps.actions.dry_run import show_plan
from sweeps.actions.estimate import estimates_of, left_of, show_estimate
from sweeps.actions.status import show_status
from sweeps.controller.stopping import Stop
from sweeps.launched_study import RecordedStudy
from sweeps.profile_file import PROFILES, load_profile
from sweeps.rows import Row
from sweeps.study_file import load_study, parse_override

TUNED = ("teacher_tuning.trials=4", "replicates=2")
KD = """
[[rows]]
name = "kd"
method = "kd"
"""

BEFORE = {
    "no_kd": "9146123d593a74ae4ca2973b0fb411b58a16267feb3d717aefe53ff6d04ec7b3",
    "crd": "b051671bd3d9ffbb97f0b8cfca59a2ed21a18f435b71cb8eda66bd4b40e672ae",
    "no_kd r1": "b372239a7a35484f40c3df4d6a2905d6402f7d73abe8b8a28d0f23d70677e828",
    "crd r1": "44cabb22dd1f74cd6dade8b1ea594ac74952517b452d31745370ddfd63b3ae26",
}
"""Digests of the tiny study's rows from before teachers could be tuned."""


@pytest.fixture
def study(study_file: Path) -> Path:
    """A study with two rows that have the same teacher."""
    study_file.write_text(study_file.read_text() + KD)
    return study_file


def digest_on_any_data(row: Row) -> str:
    """A row's digest, with a fixed fingerprint in place of its data's."""
    data = DataSource(path="", fingerprint="f" * 64)
    return replace(row, student=row.student.model_copy(update={"data": data})).digest


def taught_by(study: RecordedStudy) -> dict[tuple[str, str], str]:
    """The learning rate and seed of the teacher in each run's configuration, by row and run."""
    found = {}
    for row in study.rows:
        for run in row.runs():
            teacher = getattr(from_json(read_json(run.config), run.config), "teacher", None)
            if teacher is not None:
                found[row.title, run.path.name] = f"{teacher.training.learning_rate:g}"
    return found


def teachers_of(backend: FakeBackend) -> list[str]:
    return [job.command[3] for job in backend.jobs if Path(job.command[3]).parent.name == "teachers"]


# --- identity


def test_rows_without_teacher_tuning_are_what_they_were(study_file: Path, tmp_path: Path) -> None:
    rows = rows_of(study_file, tmp_path, "replicates=2")
    assert {title: digest_on_any_data(row) for title, row in rows.items()} == BEFORE
    off = rows_of(study_file, tmp_path, "replicates=2", "teacher_tuning.trials=0")
    assert {title: row.digest for title, row in off.items()} == {title: row.digest for title, row in rows.items()}


def test_the_settings_belong_to_the_identity_of_rows_with_a_teacher(study: Path, tmp_path: Path) -> None:
    def digests(*overrides: str) -> dict[str, str]:
        return {title: row.digest for title, row in rows_of(study, tmp_path, *overrides).items()}

    off, four = digests(), digests("teacher_tuning.trials=4")
    more = digests("teacher_tuning.trials=8")
    narrow = digests("teacher_tuning.trials=4", "teacher_tuning.readout=['mean']")
    assert off["no_kd"] == four["no_kd"] == more["no_kd"], "it has no teacher"
    for name in ("crd", "kd"):
        assert len({off[name], four[name], more[name], narrow[name]}) == 4


def test_the_outcome_does_not_belong_to_the_identity(study: Path, tmp_path: Path) -> None:
    before = [row.digest for row in planned(study, tmp_path, *TUNED)]
    launched(study, tmp_path, *TUNED)
    rows = planned(study, tmp_path, *TUNED)
    assert [row.digest for row in rows] == before
    assert all(row.search is None or row.search.chosen() is not None for row in rows)


def test_teachers_are_tuned_by_default_where_data_have_no_profile_of_their_own() -> None:
    tuned = {path.stem: load_profile(path.stem, "")[1].teacher_tuning for path in PROFILES.glob("*.toml")}
    assert {name for name, table in tuned.items() if table} == {"default"}
    assert tuned["default"] == {"trials": 8}
    assert load_profile("auto", "a sensor data set of ours")[0] == "default"


# --- candidates


def test_candidates_follow_from_recipe_replicate_and_number(study: Path, tmp_path: Path) -> None:
    few, many = (rows_of(study, tmp_path, f"teacher_tuning.trials={n}", "replicates=2") for n in (4, 8))
    for title in ("kd", "kd r1"):
        (one, other) = (rows[title].search for rows in (few, many))
        assert one is not None
        assert other is not None
        assert list(one.candidates) == list(other.candidates)[:4], "more trials keep those that are there"
        base, *others = other.candidates.values()
        assert base.network == few[title].student.teacher.network, "the first is the recipe as it is"  # type: ignore[union-attr]
        for config in others:
            dropout = config.network.dropout
            assert 3e-4 <= config.training.learning_rate <= 1e-2
            assert 0 <= dropout.embedding <= 0.4
            assert dropout.embedding == dropout.residual == dropout.relu == dropout.output
            assert dropout.attention == base.network.dropout.attention
            assert 0 <= config.training.augmentation.warp <= 0.2
        assert {config.network.readout for config in others} == {"last", "mean"}
        assert not any(config.evaluate_test for config in other.candidates.values())
    assert few["kd"].search is few["crd"].search
    assert set(few["kd"].search.candidates).isdisjoint(few["kd r1"].search.candidates)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher_tuning.trials=-1", "teacher_tuning: trials"),
        ("teacher_tuning.readout=['first']", "last"),
        ("teacher_tuning.dropout.high=2", "dropout"),
        ("teacher_tuning.rate=1", "unknown key"),
        ("teacher_tuning.learning_rate={low=0.1, high=0.2, default=0.15}", "the first trial is the recipe as it is"),
    ],
)
def test_mistakes_are_explained(study: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        rows_of(study, tmp_path, override)
    assert str(study) in str(error.value)


# --- a launch


def test_the_best_candidate_teaches_tuning_and_each_seed(study: Path, tmp_path: Path) -> None:
    backend = FakeBackend()
    found = launched(study, tmp_path, *TUNED, backend=backend)
    rows = {row.title: row for row in planned(study, tmp_path, *TUNED)}
    for replicate in ("", " r1"):
        search = rows[f"kd{replicate}"].search
        assert search is not None
        chosen = search.chosen()
        assert chosen is not None
        record = read_record(search.record, TeacherChoice)
        assert record.values[record.teacher] == min(record.values.values())
        assert len(record.values) == 4
        taught = {
            rate for (title, _), rate in taught_by(found).items() if title in (f"kd{replicate}", f"crd{replicate}")
        }
        assert taught == {f"{chosen.training.learning_rate:g}"}
    # 4 candidates, and a teacher for each of 2 seeds; that of tuning is the chosen candidate itself.
    assert len(teachers_of(backend)) == len(set(teachers_of(backend))) == 2 * (4 + 2)


def test_a_study_that_is_stopped_anywhere_ends_as_if_it_had_not_been(study: Path, tmp_path: Path) -> None:
    whole = launched(study, tmp_path / "whole", *TUNED)
    for rounds in range(0, 40, 3):
        launched(study, tmp_path / "parts", *TUNED, stop=after(rounds, Stop.WITH_JOBS))
    parts = launched(study, tmp_path / "parts", *TUNED)
    assert taught_by(parts) == taught_by(whole)
    assert [sorted(run.path.name for run in row.runs()) for row in parts.rows] == [
        sorted(run.path.name for run in row.runs()) for row in whole.rows
    ]


def test_a_finished_study_trains_nothing(study: Path, tmp_path: Path) -> None:
    launched(study, tmp_path, *TUNED)
    again = FakeBackend()
    launched(study, tmp_path, *TUNED, backend=again)
    assert again.jobs == []


def test_more_trials_keep_those_that_are_there(study: Path, tmp_path: Path) -> None:
    launched(study, tmp_path, *TUNED)
    more = FakeBackend()
    launched(study, tmp_path, "teacher_tuning.trials=6", "replicates=2", backend=more)
    kinds = Counter(Path(job.command[3]).parent.name for job in more.jobs)
    assert 2 * 2 <= kinds["teachers"] <= 2 * (2 + 2), "two more candidates each, and new teachers where one of them won"


def test_a_failed_candidate_is_left_out_and_the_choice_stays(study: Path, tmp_path: Path) -> None:
    search = rows_of(study, tmp_path, "teacher_tuning.trials=4")["kd"].search
    assert search is not None
    first, *_ = search.candidates

    def fails(job: Job, attempt: int) -> Failure | None:
        return Failure.ERROR if job.command[3] == str(first.path) else None

    launched(study, tmp_path, "teacher_tuning.trials=4", backend=FakeBackend(fails))
    record = read_record(search.record, TeacherChoice)
    assert first.path.name not in record.values
    assert len(record.values) == 3
    again = FakeBackend()
    launched(study, tmp_path, "teacher_tuning.trials=4", backend=again)
    assert again.jobs == []


def test_without_any_candidate_the_rows_with_a_teacher_fail(study: Path, tmp_path: Path) -> None:
    def fails(job: Job, attempt: int) -> Failure | None:
        return Failure.ERROR if Path(job.command[3]).parent.name == "teachers" else None

    found = launched(study, tmp_path, "teacher_tuning.trials=2", backend=FakeBackend(fails))
    assert [len(row.runs()) for row in found.rows] == [5, 0, 0]
    later = launched(study, tmp_path, "teacher_tuning.trials=2")
    assert [len(row.runs()) for row in later.rows] == [5, 5, 5]


# --- what is shown


def test_the_budget_is_shown(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = planned(study, tmp_path, *TUNED)
    spec = load_study(study, [parse_override(text) for text in TUNED])
    show_plan(spec, rows, rows[0].root, "default", "local", 2)
    said = capsys.readouterr().out
    assert "12 (in each replicate 4 to choose one from and one per seed), 0 trained" in said
    assert "the best of 4 by valid loss: learning rate 0.0003 to 0.01 (log), dropout 0 to 0.4" in said
    left = [left_of(row) for row in rows]
    show_estimate(left, estimates_of(left, rows[0].root, FakeBackend()), 2, 0)
    assert "12 teachers" in capsys.readouterr().out

    found = launched(study, tmp_path, *TUNED)
    show_status(found)
    assert "12 of 12 trained, the best of 4 is chosen in each replicate" in capsys.readouterr().out
    assert monitor(["--root", str(found.root.path), "--once", "--study", "tiny"]) == 0
    assert "teachers 12/12" in capsys.readouterr().out
    table = analysis.table(analysis.load(found.root.path), "tiny")
    text = analysis.to_text(table, 200)
    assert "teachers are tuned: in each replicate the best of 4 on validation" in text
    teacher = next(row for section in table.sections for row in section.rows if row.kind == "teacher")
    assert (teacher.cells["trials"].n, teacher.cells["trials"].wanted) == (8, 8)


def test_doctor_knows_the_candidates(study: Path, tmp_path: Path) -> None:
    found = launched(study, tmp_path, *TUNED)
    examined = examine(analysis.load(found.root.path))
    assert not [finding for finding in examined.problems if finding.kind in ("configurations", "teachers")]
    fates = examined.fates
    teachers = fates[fates["directory"].str.startswith("teachers/")]
    assert set(teachers["fate"]) == {"in a table"}
    assert len(teachers) == 12


def test_an_archive_keeps_the_choice(study: Path, tmp_path: Path) -> None:
    found = launched(study, tmp_path, *TUNED)
    choices = [path for path in members(found) if path.name.startswith("choice-")]
    assert len(choices) == 2
    assert {TrialDir(path.parent) for path in choices} <= set(found.teachers())
