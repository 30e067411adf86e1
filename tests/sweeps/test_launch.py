"""The command line: what it says, and how it refuses. One line and exit code 2 for what the user can mend."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from launched import planned

from mmkd.data import read_info
from mmkd.distillation.facts import keep_facts
from mmkd.rundir import Root
from sweeps.controller.row import RowWork
from sweeps.launch import main

LAUNCH = Path(__file__).parents[2] / "sweeps" / "launch.py"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]):
    """Run the command, expecting a refusal; its one line."""

    def run(*arguments: str | Path) -> str:
        assert main([str(a) for a in arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1, "one line"
        return said

    return run


def test_help_and_list_answer_without_torch() -> None:
    code = "import sys; from sweeps.launch import main; main(['--list']); sys.exit('torch' in sys.modules)"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert listed.returncode == 0
    assert "crd_attention" in listed.stdout
    helped = subprocess.run([sys.executable, str(LAUNCH), "--help"], capture_output=True, text=True)
    assert helped.returncode == 0
    assert "examples:" in helped.stdout


def test_a_dry_run_says_what_would_run_and_runs_nothing(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs"
    assert main(["--study", str(study_file), "--root", str(root), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "3 trials (random sampler)" in said
    assert "temperature 0.05 to 1 (log)" in said
    assert "teachers  3 (one for tuning and one per seed), 0 trained" in said
    assert list(root.iterdir()) == []


def test_a_dry_run_shows_the_values_that_the_study_leaves_out(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "bare.toml"
    rows = '[[rows]]\nname = "no_kd"\nmethod = "no_kd"\n[[rows]]\nname = "crd"\nmethod = "crd"\n'
    rows += "space.beta = {low = 0.1, high = 1}\n"
    study.write_text(f'title = "Bare"\ndata = "{tiny_data}"\ntraining.learning_rate = 0.002\n{rows}')
    assert main(["--study", str(study), "--root", str(tmp_path / "runs"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "tunes nothing: all its trials train the same configuration; fixed: learning_rate = 0.002" in said
    assert "tunes beta 0.1 to 1; fixed: alpha = 1, temperature = 0.07, learning_rate = 0.002" in said


def test_a_new_row_says_what_it_differs_in_from_its_nearest_neighbour(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs"
    common = ["--study", str(study_file), "--root", str(root), "--cluster", "debug", "--device", "cpu"]
    assert main([*common, "--trials", "1", "--seeds", "1", "--epochs", "1"]) == 0
    capsys.readouterr()
    change = ["--set", "rows.crd.space.beta.high=0.5", "--epochs", "1", "--dry-run"]
    assert main([*common, *change]) == 0
    assert "differs from crd-attention_maps-others-video-" in (said := capsys.readouterr().out)
    assert "space.beta.high: 0.5, there 1.0" in said
    assert main([*common, "--set", "rows.crd.space.beta=0.5", "--epochs", "1", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "fixed.beta: 0.5, there not set; space.beta.high: not set, there 1.0" in said
    assert "{}" not in said


def test_options_of_the_command_line_win_over_the_study_file(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--trials", "7", "--seeds", "4", "--epochs", "9", "--sampler", "tpe", "--pairing", "audio"]
    options += ["--primary", "language", "--set", "rows.crd.trials=8"]
    assert main(["--study", str(study_file), "--root", str(tmp_path / "runs"), "--dry-run", *options]) == 0
    said = capsys.readouterr().out
    assert "7 trials (tpe sampler)" in said
    assert "8 trials (tpe sampler)" in said
    assert "4 fresh seeds" in said
    assert "9 epochs" in said
    assert "student of language" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--study", "crd_atention"], "unknown study 'crd_atention'; did you mean crd_attention"),
        (["--study", "nowhere.toml"], "nowhere.toml: no such study file"),
        (["--study", "crd_attention", "--data", "nowhere.h5"], "nowhere.h5"),
        (["--study", "crd_attention", "--set", "novalue"], "write KEY=VALUE"),
        (["--study", "crd_attention", "--set", "title.x=1"], "'title' is a value, not a table"),
        (["--study", "crd_attention", "--set", "data=synthetic:huge"], "huge"),
        (["--study", "crd_attention", "--cluster", "slurm"], "Slurm does not answer"),
        (["--study", "crd_attention", "--as", "../up"], "study '../up'"),
    ],
)
def test_what_the_user_can_mend_is_said_in_one_line(refused, tmp_path: Path, arguments: list[str], said: str) -> None:
    assert said in refused(*arguments, "--root", tmp_path / "runs")


def test_a_primary_that_the_data_lack_is_refused_with_the_choices(refused, study_file: Path, tmp_path: Path) -> None:
    said = refused("--study", study_file, "--primary", "smell", "--root", tmp_path / "runs")
    assert "no modality 'smell': give --primary video or audio or language" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"not HDF5 at all", "foreign.h5"), (b"\x89HDF\r\n\x1a\n" + bytes(100), "foreign.h5"), (b"", "foreign.h5")],
)
def test_a_truncated_or_foreign_data_file_is_refused(refused, tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "foreign.h5"
    path.write_bytes(content)
    assert said in refused("--study", "crd_attention", "--data", path, "--root", tmp_path / "runs")


def test_data_with_nan_are_refused_before_anything_runs(
    refused, study_file: Path, tiny_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "nan.h5"
    path.write_bytes(tiny_data.read_bytes())
    with h5py.File(path, "r+") as file:
        file["train/arrays/audio"][3, 2, 0] = np.nan
    said = refused("--study", study_file, "--data", path, "--root", tmp_path / "runs")
    assert "nan.h5" in said
    assert "audio" in said
    assert not list((tmp_path / "runs").glob("**/attempts"))


def test_wrong_shapes_are_refused(refused, study_file: Path, tiny_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "shapes.h5"
    path.write_bytes(tiny_data.read_bytes())
    with h5py.File(path, "r+") as file:
        del file["valid/arrays/audio"]
        file["valid/arrays/audio"] = np.zeros((24, 5, 2), np.float32)
    assert "shapes.h5" in refused("--study", study_file, "--data", path, "--root", tmp_path / "runs")


def test_a_root_that_cannot_be_written_is_refused(refused, study_file: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "cannot be written" in refused("--study", study_file, "--root", blocked / "runs")


def test_impossible_counts_are_refused(study_file: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--study", str(study_file), "--trials", "0"])
    assert stopped.value.code == 2


def test_the_study_runs_in_this_process_with_the_debug_backend(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_data: Path
) -> None:
    common = ["--study", str(study_file), "--root", str(tmp_path / "runs"), "--cluster", "debug", "--device", "cpu"]
    assert main([*common, "--trials", "1", "--seeds", "1", "--epochs", "1", "--as", "mine"]) == 0
    assert read_info(tiny_data).fingerprint[:12] in capsys.readouterr().out
    assert (tmp_path / "runs" / "studies" / "mine.json").exists()


def test_a_launch_beside_another_controller_of_the_study_changes_no_record(
    refused, study_file: Path, tmp_path: Path
) -> None:
    row = planned(study_file, tmp_path)[0]
    holder = RowWork(row, 1, study_file, study_file.stem)
    said = refused("--study", study_file, "--root", tmp_path / "runs", "--cluster", "local", "--seeds", "9")
    holder.close()
    assert f"row {row.name}: another controller is at work" in said
    assert not list((tmp_path / "runs" / "studies").glob("*.json"))


def test_a_second_launch_knows_the_methods_without_torch_unless_the_code_has_changed(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = planned(study_file, tmp_path)
    keep_facts(Root(tmp_path / "runs").methods, [row.method for row in first])
    assert not list((tmp_path / "runs").glob("*")), "a root that is not there yet"
    (tmp_path / "runs").mkdir()
    for row in first:
        keep_facts(Root(tmp_path / "runs").methods, [row.method])

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is imported")

    monkeypatch.setattr("mmkd.distillation.facts.load_method", refuse)
    assert [row.identity for row in planned(study_file, tmp_path)] == [row.identity for row in first]
    monkeypatch.setattr("mmkd.distillation.facts.source_digest", lambda: "other code")
    with pytest.raises(AssertionError, match="is imported"):
        planned(study_file, tmp_path)
