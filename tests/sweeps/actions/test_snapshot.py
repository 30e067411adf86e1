"""Which code a row's trials ran: written down, kept on demand, and a change of it said once."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeBackend
from launched import launched, planned
from rich.console import Console

from mmkd import provenance
from mmkd.errors import UserError
from mmkd.files import read_json
from mmkd.rundir import Root
from slurm.backend import Job
from sweeps.actions.snapshot import CodeWatch, keep_patch, take_snapshot
from sweeps.controller.loop import Controller
from sweeps.controller.progress import Reporter
from sweeps.controller.row import RowWork
from sweeps.launch import main
from sweeps.snapshot_path import run_from, snapshot_directory

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "runs")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package in the place of mmkd, to be edited."""
    folder = tmp_path / "mmkd"
    folder.mkdir()
    (folder / "trial.py").write_text("LOSS = 1\n")
    return folder


@pytest.fixture
def works(study_file: Path, tmp_path: Path) -> Iterator[list[RowWork]]:
    """The rows of a finished study that is extended by a trial, opened."""
    launched(study_file, tmp_path)
    opened = [RowWork(row, 2, study_file) for row in planned(study_file, tmp_path, "defaults.trials=4")]
    yield opened
    for work in opened:
        work.close()


def test_a_snapshot_holds_what_a_controller_imports_and_is_taken_once(root: Root) -> None:
    snapshot = take_snapshot(root)
    assert snapshot == snapshot_directory(root) == take_snapshot(root)
    assert [path.name for path in root.code.glob("*/")] == [snapshot.name]
    assert (snapshot / "mmkd" / "trial.py").read_bytes() == (REPOSITORY / "mmkd" / "trial.py").read_bytes()
    assert (snapshot / "sweeps" / "studies" / "crd_attention.toml").exists()
    kinds = {path.suffix for path in snapshot.rglob("*") if path.is_file()}
    assert kinds == {".py", ".toml", ".json"}
    origin = read_json(snapshot / "snapshot.json")
    assert origin["code"] == provenance.source_digest()
    assert origin["git"] == provenance.git_commit()


def test_python_runs_the_snapshot_even_where_the_working_directory_holds_the_packages(root: Root) -> None:
    snapshot = take_snapshot(root)
    code = "import mmkd, sweeps.rows, slurm; print(mmkd.__file__, sweeps.rows.__file__, slurm.__file__, sep='\\n')"
    ours = {**os.environ, **run_from(snapshot)}
    asked = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=ours, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    assert all(Path(line).is_relative_to(snapshot) for line in asked.stdout.splitlines())
    where = (
        "from mmkd.provenance import git_commit; from sweeps.actions.snapshot import *; from mmkd.rundir import Root; "
    )
    code = f"{where}print(git_commit().get('commit', ''), take_snapshot(Root(Path({str(root.path)!r}))))"
    asked = subprocess.run([sys.executable, "-c", code], env=ours, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    commit, own = asked.stdout.rsplit(" ", 1)
    assert commit == provenance.git_commit().get("commit", ""), "a snapshot remembers the commit that it was taken from"
    assert own.strip() == str(snapshot), "from a snapshot, the snapshot is itself"


def test_a_snapshot_that_was_edited_is_refused(root: Root) -> None:
    snapshot = take_snapshot(root)
    (snapshot / "mmkd" / "trial.py").write_text("")
    with pytest.raises(UserError, match="this snapshot was changed; remove the directory"):
        take_snapshot(root)


def test_a_dry_run_takes_no_snapshot(study_file: Path, root: Root) -> None:
    where = ["--study", str(study_file), "--root", str(root.path), "--cluster", "local", "--device", "cpu"]
    assert main([*where, "--snapshot", "--dry-run"]) == 0
    assert not root.code.exists()


def test_a_row_writes_down_the_code_that_it_begins_with(study_file: Path, root: Root, package: Path) -> None:
    (row,) = planned(study_file, root.path.parent)[:1]
    work = RowWork(row, 2, study_file)
    assert CodeWatch([work], root, package).begin() == "", "the first code of a row is no change"
    (entry,) = read_json(row.directory.code)
    assert entry["code"] == provenance.source_digest(package)
    assert CodeWatch([work], root, package).begin() == ""
    assert len(read_json(row.directory.code)) == 1
    work.close()


def test_a_damaged_list_of_versions_is_refused_and_stays(study_file: Path, root: Root, package: Path) -> None:
    (row,) = planned(study_file, root.path.parent)[:1]
    work = RowWork(row, 2, study_file)
    row.directory.code.write_text('[{"code": "0123')
    with pytest.raises(UserError, match=r"code\.json: .*; repair it, or move it away"):
        CodeWatch([work], root, package).begin()
    assert row.directory.code.read_text() == '[{"code": "0123'
    work.close()


def test_a_relaunch_with_other_code_says_so_once_and_names_rows_and_ways_out(
    works: list[RowWork], root: Root, package: Path
) -> None:
    before = provenance.source_digest(package)
    CodeWatch(works, root, package).begin()
    (package / "trial.py").write_text("LOSS = 2\n")
    now = provenance.source_digest(package)
    said = CodeWatch(works, root, package).begin()
    assert f"changed since runs of no_kd, crd (was {before}, is {now})" in said
    assert "--snapshot" in said
    assert "new rows" in said
    assert CodeWatch(works, root, package).begin() == ""
    assert [entry["code"] for entry in read_json(works[0].directory.code)] == [before, now]


def test_the_way_back_is_the_snapshot_of_then_where_there_is_one(
    works: list[RowWork], root: Root, package: Path
) -> None:
    snapshot = take_snapshot(root)
    CodeWatch(works, root, snapshot / "mmkd").begin()
    said = CodeWatch(works, root, package).begin()
    assert f"PYTHONPATH={snapshot} PYTHONSAFEPATH=1 python {snapshot}/sweeps/launch.py" in said


def test_an_edit_under_a_running_study_is_said_once_and_written_down(
    works: list[RowWork], root: Root, package: Path
) -> None:
    watch = CodeWatch(works, root, package)
    watch.begin()
    assert watch() == ""
    (package / "new_method.py").write_text("")
    assert "changed under the running study" in watch()
    assert watch() == ""
    assert len(read_json(works[1].directory.code)) == 2


def test_a_running_controller_reports_the_change(
    study_file: Path, root: Root, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.controller.loop.HEARTBEAT_SECONDS", 0.0)
    work = RowWork(planned(study_file, root.path.parent)[0], 2, study_file)
    watch = CodeWatch([work], root, package)
    watch.begin()

    def edits(job: Job, attempt: int) -> None:
        (package / "trial.py").write_text("LOSS = 3\n")

    console = Console(record=True, file=io.StringIO(), width=1000)
    with Reporter(console) as reporter:
        Controller([work], root, FakeBackend(edits), 1, reporter, news=watch, interval=0.0).run()
    work.close()
    assert console.export_text().count("changed under the running study") == 1
    assert len(read_json(work.directory.code)) == 2


def test_rows_that_are_done_have_nothing_to_say(study_file: Path, tmp_path: Path, root: Root, package: Path) -> None:
    launched(study_file, tmp_path)
    work = RowWork(planned(study_file, tmp_path)[0], 2, study_file)
    CodeWatch([work], root, package).begin()
    (package / "trial.py").write_text("LOSS = 2\n")
    assert CodeWatch([work], root, package).begin() == ""
    assert not work.directory.code.exists()
    work.close()


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_patch_of_a_changed_working_tree_holds_new_modules_and_applies(
    root: Root, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = package.parent
    (package / "__init__.py").write_text("")
    (repository / ".gitignore").write_text("runs/\n")
    git(repository, "init", "-q")
    git(repository, "add", ".gitignore", "mmkd")
    git(repository, "commit", "-q", "-m", "first")
    monkeypatch.setattr(provenance, "SOURCE", package)
    assert provenance.git_commit()["diff"] == ""
    assert keep_patch(root) is None
    (package / "trial.py").write_text("LOSS = 2\n")
    (package / "distillation").mkdir()
    (package / "distillation" / "mine.py").write_text("METHOD = 'mine'\n")
    patch = keep_patch(root)
    assert patch is not None
    commit = provenance.git_commit()
    assert patch.name == f"{commit['commit'][:12]}-{commit['diff']}.patch"
    git(repository, "clone", "-q", ".", "clone")
    git(repository / "clone", "apply", str(patch))
    assert provenance.source_digest(repository / "clone" / "mmkd") == provenance.source_digest(package)


def test_code_that_lies_below_a_working_tree_without_being_part_of_it_has_no_commit(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "__init__.py").write_text("")
    git(package.parent, "init", "-q")
    git(package.parent, "commit", "-q", "--allow-empty", "-m", "first")
    monkeypatch.setattr(provenance, "SOURCE", package)
    assert provenance.git_commit() == {}
