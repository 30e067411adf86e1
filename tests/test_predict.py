"""A finished student is of use: predictions of new recordings, and an export that computes the same."""

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorded import row_record, winner_record

from mmkd import export, predict
from mmkd.config import SplitSettings
from mmkd.data import choose_split, read_info, read_split
from mmkd.files import write_json
from mmkd.records import StudyRecord, StudyRow, write_record
from mmkd.result_file import read_result
from mmkd.rundir import Root, RowDir, TrialDir
from mmkd.training.trained_network import load_student

ENDS = {predict: "out.csv", export: "out.pt2"}


@pytest.fixture
def trial(lab: Any) -> TrialDir:
    place: TrialDir = lab.run(lab.student(evaluate_test=True, seed=1))
    return place


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_predictions_are_those_of_the_trial(lab: Any, trial: TrialDir, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert predict.main(["--trial", str(trial.path), "--data", str(lab.data), "--out", str(out)]) == 0
    stored = read_result(trial.result).predictions["test"]
    header, *lines = table(out)
    assert header[:3] == ["id", "true", "predicted"]
    assert [line[0] for line in lines] == stored.ids
    probabilities = np.array([[float(p) for p in line[3:]] for line in lines])
    expected = torch.from_numpy(stored.logits).softmax(1).numpy()
    assert np.abs(probabilities - expected).max() < 1e-4


def test_of_its_own_data_a_student_predicts_the_test_part_of_its_own_split(lab: Any, tmp_path: Path) -> None:
    choice = choose_split(read_info(lab.data), SplitSettings(scheme="group-folds"), 0)
    trial = lab.run(lab.student(evaluate_test=True, seed=1, split=choice))
    out = tmp_path / "out.csv"
    assert predict.main(["--trial", str(trial.path), "--data", str(lab.data), "--out", str(out)]) == 0
    stored = read_result(trial.result).predictions["test"]
    _, *lines = table(out)
    assert [line[0] for line in lines] == stored.ids != read_split(lab.data, "test").ids
    probabilities = np.array([[float(p) for p in line[3:]] for line in lines])
    assert np.abs(probabilities - torch.from_numpy(stored.logits).softmax(1).numpy()).max() < 1e-4


@pytest.mark.filterwarnings("error")
def test_raw_arrays_need_no_data_file(lab: Any, trial: TrialDir, tmp_path: Path) -> None:
    raw = read_split(lab.data, "test", ["video"], standardise=False).arrays["video"]
    np.save(tmp_path / "new.npy", raw)
    for name, data in (("a.csv", tmp_path / "new.npy"), ("b.csv", lab.data)):
        assert predict.main(["--trial", str(trial.path), "--data", str(data), "--out", str(tmp_path / name)]) == 0
    arrays, file = table(tmp_path / "a.csv"), table(tmp_path / "b.csv")
    assert [line[1:] for line in arrays] == [line[2:] for line in file]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 5, 6), np.float32), "5 steps and 6 features"),
        (np.full((2, 8, 6), np.nan, np.float32), "sample 0 holds NaN"),
        (np.zeros((2, 8)), "float64 of shape (2, 8), not numbers in (samples, steps, features)"),
        (np.array([["a"]]), "not numbers"),
    ],
)
def test_what_the_student_cannot_take_is_refused_in_one_line(
    trial: TrialDir, tmp_path: Path, capsys: pytest.CaptureFixture[str], array: np.ndarray, said: str
) -> None:
    np.save(tmp_path / "new.npy", array)
    out = tmp_path / "out.csv"
    assert predict.main(["--trial", str(trial.path), "--data", str(tmp_path / "new.npy"), "--out", str(out)]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert not out.exists()


def test_a_pickled_array_is_refused(trial: TrialDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "bad.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    options = ["--trial", str(trial.path), "--data", str(tmp_path / "bad.npy"), "--out", str(tmp_path / "o.csv")]
    assert predict.main(options) == 2
    assert "not a readable .npy file" in capsys.readouterr().err


def test_an_export_computes_the_same_for_any_batch_and_has_a_card(trial: TrialDir, tmp_path: Path) -> None:
    out = tmp_path / "student.pt2"
    assert export.main(["--trial", str(trial.path), "--out", str(out)]) == 0
    loaded = torch.export.load(out).module()
    student = load_student(trial.path)
    for batch in (1, 3, 10):
        features = torch.randn(batch, student.steps, student.features)
        features[:, 2:4] = 0  # data, not padding
        lengths = torch.arange(batch) % student.steps + 1
        assert torch.allclose(loaded(features, lengths), student.model(features, lengths), atol=1e-6)
    card = out.with_suffix(".md").read_text()
    assert "raw video, 8 steps of 6 features" in card
    assert f"Parameters: {read_result(trial.result).parameters:,}" in card
    assert f"| test | {read_result(trial.result).metrics['test']['accuracy']:.4f} |" in card


@pytest.mark.parametrize("command", [predict, export])
def test_an_unfinished_trial_or_a_teacher_is_refused(
    lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Any
) -> None:
    teacher = lab.run(lab.teacher())
    for place, said in ((lab.place(lab.student(), 9), "no finished trial here"), (teacher, "a teacher's")):
        options = ["--trial", str(place.path), "--out", str(tmp_path / ENDS[command])]
        assert command.main(options + (["--data", str(lab.data)] if command is predict else [])) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", [predict, export])
def test_a_multimodal_student_is_refused(
    lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Any
) -> None:
    options = ["--trial", str(lab.run(lab.student(pairing="multimodal")).path), "--out", str(tmp_path / ENDS[command])]
    assert command.main(options + (["--data", str(lab.data)] if command is predict else [])) == 2
    line = capsys.readouterr().err
    assert "a multimodal student; prediction and export are for students of one modality" in line
    assert line.count("\n") == 1


@dataclass
class Rows:
    """A row `kd` under a root; its winner's final runs have the seeds 1 and 2, a former winner's the seed 1."""

    root: Path
    row: RowDir
    data: Path

    def predict(self, trial: object, *options: str) -> int:
        """The exit code of predict."""
        out = ["--out", str(self.root / "out.csv"), "--force"]
        return predict.main(["--trial", str(trial), "--root", str(self.root), "--data", str(self.data), *out, *options])


@pytest.fixture
def rows(lab: Any, trial: TrialDir, tmp_path: Path) -> Rows:
    root = Root(tmp_path / "rows-root")
    row = root.row("kd", "0" * 8)
    for name in ("1-aaaaaaaa", "1-bbbbbbbb", "2-bbbbbbbb"):
        shutil.copytree(trial.path, row.path / "confirm" / name)
    write_json(row.row, row_record())
    write_json(row.winner, winner_record({1: "1-bbbbbbbb", 2: "2-bbbbbbbb"}, trial=7))
    return Rows(root.path, row, lab.data)


@pytest.mark.parametrize("named", ["kd", "kd-00000000", "rows/kd-00000000", "{row}"])
def test_a_row_stands_for_the_first_finished_final_run_of_its_winner(
    rows: Rows, capsys: pytest.CaptureFixture[str], named: str
) -> None:
    named = named.format(row=rows.row.path)
    assert rows.predict(named) == 0
    assert f"using {rows.row.path}/confirm/1-bbbbbbbb (seed 1 of the row's winner, trial 7)" in capsys.readouterr().out
    (rows.row.path / "confirm" / "1-bbbbbbbb" / "result.h5").unlink()
    assert rows.predict(named) == 0
    assert "confirm/2-bbbbbbbb (seed 2" in capsys.readouterr().out


def test_a_row_is_found_by_its_name_in_a_study(rows: Rows, capsys: pytest.CaptureFixture[str]) -> None:
    facts: Any = {"group": None, "directory": "kd-00000000", "trials": 1, "seeds": (1,), "teachers": ()}
    row = StudyRow(name="hint_on_logits", label="KD", **facts)
    (rows.root / "studies").mkdir()
    write_record(Root(rows.root).study("mine"), StudyRecord(name="mine", title="Mine", control=None, rows=(row,)))
    assert rows.predict("hint_on_logits") == rows.predict("hint_on_logits/confirm/2") == rows.predict("kd") == 0
    assert "confirm/1-bbbbbbbb (seed 1 of the row's winner" in capsys.readouterr().out
    assert rows.predict("hint_on_logit") == 2
    assert "did you mean hint_on_logits?" in capsys.readouterr().err


def test_study_chooses_among_rows_of_one_name(rows: Rows, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(rows.row.path, rows.root / "rows" / "kd-11111111")
    (rows.root / "studies").mkdir()
    for study, directory in (("first", "kd-00000000"), ("second", "kd-11111111")):
        facts: Any = {"group": None, "directory": directory, "trials": 1, "seeds": (1,), "teachers": ()}
        record = StudyRecord(name=study, title="T", control=None, rows=(StudyRow(name="kd", label="KD", **facts),))
        write_record(Root(rows.root).study(study), record)
    assert rows.predict("kd") == 2
    assert "names several rows: kd-00000000, kd-11111111; choose one, or give --study" in capsys.readouterr().err
    assert rows.predict("kd", "--study", "second") == 0
    assert "kd-11111111/confirm/1-bbbbbbbb" in capsys.readouterr().out
    assert rows.predict("kd", "--study", "third") == 2
    assert "unknown study" in capsys.readouterr().err


def test_an_export_of_a_row_has_the_card_of_that_run(rows: Rows, tmp_path: Path) -> None:
    out = tmp_path / "student.pt2"
    assert export.main(["--trial", "kd", "--root", str(rows.root), "--out", str(out)]) == 0
    card = out.with_suffix(".md").read_text()
    assert "Trial: `1-bbbbbbbb` of row `kd-00000000`" in card
    assert "over 2 of 2 seeds" in card


def test_a_run_of_a_former_winner_needs_superseded(rows: Rows, capsys: pytest.CaptureFixture[str]) -> None:
    former = rows.row.path / "confirm" / "1-aaaaaaaa"
    assert rows.predict(former) == 2
    said = capsys.readouterr().err
    assert f"--trial {former}: a final run of a former winner; the row's winner is trial 7 now" in said
    assert rows.predict("kd/confirm/1-a") == 2
    assert rows.predict("kd/confirm/1-a", "--superseded") == 0
    assert rows.predict(former, "--superseded") == 0


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("kd/confirm/1", "names several; choose one of: 1-aaaaaaaa, 1-bbbbbbbb (the winner)"),
        ("{row}/confirm/1", "names several; choose one of: 1-aaaaaaaa, 1-bbbbbbbb (the winner)"),
        ("kd/confirm/9", "row kd-00000000 has no such trial; choose one of: 1-aaaaaaaa, 1-bbbbbbbb"),
        ("kd/trials/0", "row kd-00000000 has no such trial; choose one of: none"),
        ("kt", "--trial kt: unknown row 'kt'; did you mean kd?"),
        ("no/such/place", "--trial no/such/place: no such trial or row"),
    ],
)
def test_a_name_that_is_none_or_several_is_answered_with_the_candidates(
    rows: Rows, capsys: pytest.CaptureFixture[str], named: str, said: str
) -> None:
    assert rows.predict(named.format(row=rows.row.path)) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


def test_a_seed_that_is_the_winners_alone_is_found(rows: Rows) -> None:
    assert rows.predict("kd/confirm/2") == 0


def test_rows_of_one_name_are_listed_and_a_row_without_a_winner_is_named(
    rows: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    rows.row.winner.unlink()
    assert rows.predict("kd") == 2
    assert "row kd-00000000 has no winner yet" in capsys.readouterr().err
    shutil.copytree(rows.row.path, rows.root / "rows" / "kd-11111111")
    assert rows.predict("kd") == 2
    assert "names several rows: kd-00000000, kd-11111111; choose one" in capsys.readouterr().err
