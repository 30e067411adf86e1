"""Every run of a root is in the tracker once, with its parameters, epochs, result and tags."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from readers import READERS, comparable
from roots import Lab, finish, student_config

from analysis.__main__ import main
from analysis.commands.export_runs import TRACKERS
from mmkd.attempts import record_submission
from mmkd.config import identity, to_json
from mmkd.files import write_json
from mmkd.metrics_log import append_metrics
from mmkd.rundir import RowDir, TrialDir


def trained(place: TrialDir, first: int, last: int) -> None:
    """Epochs of a trial, as a job writes them."""
    for epoch in range(first, last + 1):
        line = {"epoch": epoch, "learning_rate": 1e-2, "valid_loss": 1 / epoch, "valid_accuracy": 0.1 * epoch}
        append_metrics(place, {**line, "seconds": 2.0 * epoch, "time": 1e9 + epoch})


def running(row: RowDir) -> TrialDir:
    """Trial 2 of a row, after two epochs."""
    place, config = row.trial(2), student_config(0, None, learning_rate=1e-2)
    place.path.mkdir(parents=True)
    write_json(place.config, to_json(config))
    place.attempt.write_text("1")
    trained(place, 1, 2)
    return place


@pytest.fixture
def root(lab: Lab) -> Lab:
    """A study of one row: two tuning trials, one final run and its teacher, a trial that runs and one that waits."""
    teacher = lab.teacher(1, 0.8)
    row = lab.row("crd", [0.75], [teacher], method="crd")
    trained(row.trial(0), 1, 2)
    running(row)
    row.trial(3).path.mkdir()
    write_json(row.trial(3).config, to_json(student_config(0, None)))
    lab.rows[0]["teachers"] = [lab.root.teacher(identity(teacher)).path.name]
    lab.study()
    return lab


@pytest.fixture(params=TRACKERS)
def tracker(request: pytest.FixtureRequest, root: Lab) -> str:
    pytest.importorskip(request.param, reason=f"pip install 'mmkd[{request.param}]'")
    if request.param == "mlflow":
        exported(root).mkdir()
        shutil.copy(request.getfixturevalue("empty_store"), exported(root))
    return str(request.param)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs: making its tables takes seconds."""
    pytest.importorskip("mlflow", reason="pip install 'mmkd[mlflow]'")
    from analysis.trackers.mlflow import exporter

    directory = tmp_path_factory.mktemp("mlflow")
    with exporter(directory):
        return directory / "mlflow.db"


def exported(lab: Lab) -> Path:
    return lab.path.parent / "exported"


def export(lab: Lab, tracker: str, *more: str) -> Path:
    directory = exported(lab)
    assert main(["export-runs", "--root", str(lab.path), "--to", tracker, str(directory), *more]) == 0
    return directory


def test_every_run_has_its_parameters_epochs_result_and_tags(root: Lab, tracker: str) -> None:
    seen = READERS[tracker](export(root, tracker))
    row = f"rows/{root.row_of('crd').path.name}"
    teacher = f"teachers/{root.rows[0]['teachers'][0]}"
    assert set(seen) == {*(f"{row}/trials/{n}" for n in (0, 1, 2)), f"{row}/confirm/1-abcdef01", teacher}
    tuned, final, taught, live = (
        seen[f"{row}/{x}"] for x in ("trials/0", "confirm/1-abcdef01", "trials/1", "trials/2")
    )
    assert {"kind": "tuning", "state": "complete", "method": "crd", "study": "demo"}.items() <= tuned.tags.items()
    assert tuned.tags["row"] == root.row_of("crd").path.name
    assert (final.tags["kind"], seen[teacher].tags["kind"], live.tags["state"]) == ("final", "teacher", "pending")
    assert float(tuned.parameters["training.learning_rate"]) == 0.01
    assert float(taught.parameters["training.learning_rate"]) == 0.001
    assert not any("path" in key for key in tuned.parameters)
    assert [step for step, _ in tuned.series["valid_loss"]] == [1, 2]
    assert [value for _, value in tuned.series["valid_accuracy"]] == pytest.approx([0.1, 0.2])
    assert final.result["test_accuracy"] == pytest.approx(0.75)
    assert live.result == {}
    assert len(live.series["valid_loss"]) == 2


def test_exporting_again_adds_nothing(root: Lab, tracker: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = comparable(READERS[tracker](export(root, tracker)))
    assert "5 runs" in (said := capsys.readouterr().out)
    assert "5 new or extended" in said
    assert comparable(READERS[tracker](export(root, tracker))) == first
    assert "0 new or extended" in capsys.readouterr().out


def test_exporting_later_adds_what_is_new(root: Lab, tracker: str, capsys: pytest.CaptureFixture[str]) -> None:
    export(root, tracker)
    place = root.row_of("crd").trial(2)
    trained(place, 3, 4)
    finish(place, student_config(0, None, learning_rate=1e-2), 0.6)
    capsys.readouterr()
    seen = READERS[tracker](export(root, tracker))
    assert "1 new or extended" in capsys.readouterr().out
    live = seen[f"rows/{root.row_of('crd').path.name}/trials/2"]
    assert [step for step, _ in live.series["valid_loss"]] == [1, 2, 3, 4]
    assert live.result["valid_accuracy"] == pytest.approx(0.6)
    assert live.tags["state"] == "complete"


def test_what_the_controller_records_after_the_end_adds_no_point(root: Lab, tracker: str) -> None:
    place = root.row_of("crd").trial(0)
    first = READERS[tracker](export(root, tracker))
    record_submission(place, 1, end="complete", ended=2e9, gpu_seconds=7.0)
    assert comparable(READERS[tracker](export(root, tracker))) == comparable(first)


def test_an_export_that_was_killed_is_completed_by_the_next(root: Lab, tracker: str) -> None:
    directory = export(root, tracker)
    whole = comparable(READERS[tracker](directory))
    undo_last_write(directory, tracker)
    assert comparable(READERS[tracker](export(root, tracker))) == whole


def undo_last_write(directory: Path, tracker: str) -> None:
    """Leave the files as a kill just before an export's last write does."""
    if tracker == "tensorboard":
        for path in directory.glob("rows/*/trials/0/events*"):
            path.rename(path.with_name("mmkd.partial"))
    elif tracker == "wandb":
        for path in directory.glob("wandb/offline-run-*/mmkd.content"):
            path.unlink()
    else:
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{directory}/mlflow.db")
        for run in client.search_runs([client.get_experiment_by_name("mmkd").experiment_id]):
            client.delete_tag(run.info.run_id, "mmkd.content")


def test_a_trial_that_began_again_with_another_configuration_replaces_the_first_in_tensorboard(root: Lab) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'mmkd[tensorboard]'")
    export(root, "tensorboard")
    place = root.row_of("crd").trial(2)
    write_json(place.config, to_json(student_config(0, None, learning_rate=1e-3)))
    seen = READERS["tensorboard"](export(root, "tensorboard"))
    live = seen[f"rows/{root.row_of('crd').path.name}/trials/2"]
    assert float(live.parameters["training.learning_rate"]) == 0.001
    assert [step for step, _ in live.series["valid_loss"]] == [1, 2]


def test_wandb_itself_finds_the_offline_runs(root: Lab) -> None:
    pytest.importorskip("wandb", reason="pip install 'mmkd[wandb]'")
    directory = export(root, "wandb")
    command = [sys.executable, "-m", "wandb", "sync", "--dry-run"]
    surroundings = {**os.environ, "WANDB_ERROR_REPORTING": "false"}
    done = subprocess.run(command, cwd=directory, env=surroundings, capture_output=True, text=True, check=True)
    said = done.stdout + done.stderr
    assert all(path.name in said for path in directory.glob("wandb/offline-run-*")), said


def test_only_the_runs_of_a_study_are_exported_if_asked(root: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'mmkd[tensorboard]'")
    root.rows = []
    root.row("other", [0.7])
    root.study("second")
    export(root, "tensorboard", "--study", "second")
    assert "3 runs" in capsys.readouterr().out
    unused = root.path.parent / "unused"
    assert main(["export-runs", "--root", str(root.path), "--to", "tensorboard", str(unused), "--study", "secnd"]) == 2
    assert "did you mean second?" in capsys.readouterr().err
    assert not unused.exists()


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    root: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for tracker in TRACKERS:
        monkeypatch.delitem(sys.modules, f"analysis.trackers.{tracker}", raising=False)
        for name in [name for name in sys.modules if name.partition(".")[0] == tracker]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, tracker, None)
        directory = root.path.parent / "none"
        assert main(["export-runs", "--root", str(root.path), "--to", tracker, str(directory)]) == 2
        assert f"pip install 'mmkd[{tracker}]'" in capsys.readouterr().err
        assert not directory.exists()


def test_a_file_that_is_no_mlflow_store_is_left_as_it_is(root: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow", reason="pip install 'mmkd[mlflow]'")
    directory = exported(root)
    directory.mkdir()
    (directory / "mlflow.db").write_text("my notes, which are longer than nothing")
    assert main(["export-runs", "--root", str(root.path), "--to", "mlflow", str(directory)]) == 2
    assert "mlflow.db: not an MLflow store" in capsys.readouterr().err
    assert (directory / "mlflow.db").read_text().startswith("my notes")


def test_a_path_that_mlflow_would_take_for_a_url_is_refused(root: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow", reason="pip install 'mmkd[mlflow]'")
    directory = root.path.parent / "what?"
    assert main(["export-runs", "--root", str(root.path), "--to", "mlflow", str(directory)]) == 2
    assert "choose another DIR" in capsys.readouterr().err
    assert not list(root.path.parent.glob("what*"))
