"""The plan of a study is written before its first trial, and says later what changed after test data were read."""

import shutil
from pathlib import Path

import pytest
from fakes import FakeBackend

import analysis
from analysis.__main__ import main as analyse
from mmkd.errors import UserError
from mmkd.files import read_json, write_json
from mmkd.records.plans import PlanRecord
from mmkd.rundir import Root
from mmkd.study_plan import plan_changes, plan_note, read_plan
from sweeps import launch as launching
from sweeps.launch import main


def launch(study_file: Path, *options: str) -> int:
    root = str(study_file.parent / "runs")
    return main(["--study", str(study_file), "--root", root, "--cluster", "debug", "--device", "cpu", *options])


@pytest.fixture
def root(study_file: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    """Where `launch` runs the study, on a backend that trains nothing."""
    monkeypatch.setattr("sweeps.resolve.choose_backend", lambda options, site, workers: (FakeBackend(), 8))
    study_file.write_text(
        study_file.read_text().replace("epochs = 3", "epochs = 1").replace("trials = 3", "trials = 1")
    )
    return Root(study_file.parent / "runs")


def plan(root: Root) -> PlanRecord:
    found = read_plan(root, "tiny")
    assert found is not None
    return found


def changes(root: Root) -> list[tuple[int, tuple[str, ...]]]:
    return [(change.tested, change.what) for change in plan_changes(root, plan(root))]


def doctors(root: Root) -> list[str]:
    """What `doctor` has to say of plans."""
    found = analysis.examine(analysis.load(root.path, cache=False))
    return [finding.text for finding in found.problems if finding.kind == "plan"]


def test_the_plan_stands_before_anything_runs_and_is_not_written_again(
    study_file: Path, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def control(*rest: object) -> bool:
        seen.append(plan(root))
        raise UserError("stopped before the first trial")

    with monkeypatch.context() as patched:
        patched.setattr(launching, "control", control)
        assert launch(study_file) == 2
    assert not list(root.path.glob("rows/*/trials/*"))
    assert [version.tested for version in seen[0].versions] == [0]
    row = seen[0].versions[0].rows["crd"]
    assert (row.trials, row.seeds, seen[0].versions[0].control, row.selection) == (1, 2, "no_kd", "loss")
    assert launch(study_file) == 0
    assert plan(root).versions == seen[0].versions
    assert {name.split("-")[0]: len(runs) for name, runs in plan(root).tested.items()} == {"crd": 2, "no_kd": 2}
    text = root.plan("tiny").read_bytes()
    assert launch(study_file) == 0
    assert root.plan("tiny").read_bytes() == text, "a launch that changes nothing"


def test_each_change_after_test_was_read_is_one_line_of_the_table(
    study_file: Path, root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(study_file, "--rows", "no_kd")
    launch(study_file)
    assert changes(root) == []
    launch(study_file, "--seeds", "3")
    launch(study_file, "--seeds", "1", "--set", "control=crd")
    assert changes(root) == [
        (4, ("seeds 2 → 3",)),
        (6, ("control no_kd → crd", "seeds 3 → 1")),
    ]
    launch(study_file, "--replicates", "2", "--epochs", "2")
    said = changes(root)[-1][1]
    assert "replicates 1 → 2" in said
    assert any(what.startswith("tuned again as another row: ") and "training.epochs 1 → 2" in what for what in said)
    capsys.readouterr()
    assert analyse(["table", "--root", str(root.path), "--study", "tiny"]) == 0
    note = " ".join(capsys.readouterr().out.split())
    assert "plan changed 3 times after test was read: 2" in note
    assert "seeds 2 → 3" in note


def test_deleted_final_runs_and_added_rows_are_changes(study_file: Path, root: Root) -> None:
    launch(study_file)
    gone = next(root.path.glob("rows/crd-*/confirm/1-*"))
    shutil.rmtree(gone)
    study_file.write_text(study_file.read_text() + '\n[[rows]]\nname = "kd"\nmethod = "kd"\n')
    launch(study_file)
    name = f"{gone.parents[1].name}/confirm/{gone.name}"
    assert changes(root) == [(4, ("1 row added (kd)", f"1 tested final run deleted ({name})"))]
    assert gone.exists()
    launch(study_file)
    assert len(changes(root)) == 1
    assert not doctors(root)


def test_doctor_compares_plan_record_and_directories(study_file: Path, root: Root) -> None:
    launch(study_file)
    assert not doctors(root)
    gone = next(root.path.glob("rows/crd-*/confirm/1-*"))
    shutil.copytree(gone, gone.with_name(f"7-{gone.name[2:]}"))
    shutil.rmtree(gone)
    record = read_json(root.study("tiny"))
    write_json(root.study("tiny"), {**record, "rows": [{**row, "seeds": [1]} for row in record["rows"]]})
    row = gone.parents[1].name
    assert doctors(root) == [
        "study tiny: its record differs from its plan in rows no_kd, crd; launch it again to note the change",
        f"study tiny: 1 tested final run gone: {row}/confirm/{gone.name}",
        f"rows/{row}: final runs that no plan asked for: 7-{gone.name[2:]}",
    ]
    root.plan("tiny").write_text("{}")
    assert doctors(root)[0].startswith("plans/tiny.json: study: ")


def test_a_change_before_test_is_read_is_no_note(study_file: Path, root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(launching, "control", lambda *rest: False)
        launch(study_file)
        launch(study_file, "--seeds", "1")
    assert changes(root) == [(0, ("seeds 2 → 1",))]
    assert plan_note(root, "tiny") == ""


def test_a_root_without_plan_says_so_and_a_later_plan_says_how_late_it_is(
    study_file: Path, root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(study_file)
    root.plan("tiny").unlink()
    assert analyse(["plan", "--root", str(root.path)]) == 0
    assert "no plan" in capsys.readouterr().out
    launch(study_file)
    assert plan_note(root, "tiny") == "plan written after 4 final runs had been tested"


def test_a_damaged_plan_is_not_replaced(study_file: Path, root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    launch(study_file)
    root.plan("tiny").write_text("{}")
    assert launch(study_file) == 2
    assert "plans/tiny.json: " in (said := capsys.readouterr().err)
    assert "move it away" in said
    assert root.plan("tiny").read_text() == "{}"


def test_fewer_seeds_in_another_study_do_not_take_a_run_from_the_first(study_file: Path, root: Root) -> None:
    launch(study_file)
    launch(study_file, "--seeds", "1", "--as", "smaller")
    rows = {row.name: row for row in analysis.table(analysis.load(root.path), "tiny").rows}
    assert [rows[name].cells["seeds"].text for name in ("no_kd", "crd")] == ["2", "2"]
    assert rows["crd"].cells["accuracy"].difference is not None


def test_the_command_prints_plan_and_changes(study_file: Path, root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    launch(study_file)
    launch(study_file, "--seeds", "3")
    capsys.readouterr()
    assert analyse(["plan", "--root", str(root.path), "--study", "tiny"]) == 0
    said = capsys.readouterr().out
    assert "before test was read" in said.splitlines()[0]
    assert "UTC after 4 final runs had been tested:\n  seeds 2 → 3\n" in said


def test_a_dry_run_says_what_the_table_could_detect(
    study_file: Path, root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(study_file, "--dry-run")
    assert "power     not known: nothing of tiny has finished here" in capsys.readouterr().out
    launch(study_file)
    capsys.readouterr()
    launch(study_file, "--dry-run", "--seeds", "5")
    said = capsys.readouterr().out
    assert "plan      would change: seeds 2 → 5\n" in said
    assert len(plan(root).versions) == 1
    assert "points with 5 seeds of one tuning per row (5 % / 1, power .8; spread of" in said
    launch(study_file, "--dry-run", "--replicates", "4")
    assert "power     not known: no row and its control have two" in capsys.readouterr().out
