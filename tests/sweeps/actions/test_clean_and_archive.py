"""What a study leaves on disk: cleaned of what nothing reads again, and kept whole in one file."""

import hashlib
import shutil
import tarfile
from pathlib import Path

import pytest
from controlled import run
from fakes import FakeBackend
from launched import after, launched, planned, tree

import analysis
from mmkd.failures import Failure
from mmkd.files import write_json
from mmkd.rundir import Root
from slurm.backend import Job
from sweeps.actions.archive import ArchiveDamaged, _verify
from sweeps.actions.clean import disk_use
from sweeps.controller.row_locks import take_rows
from sweeps.controller.stopping import Stop
from sweeps.launch import main
from sweeps.launched_study import RecordedStudy


@pytest.fixture
def study(study_file: Path, tmp_path: Path) -> RecordedStudy:
    """A finished study, with what killed processes leave behind."""
    study = launched(study_file, tmp_path)
    trial, row = study.rows[0].directory.trial(0), study.rows[0].directory
    for path in (trial.checkpoint, trial.path / ".tmp-ab12-weights.pt", trial.lock, row.path / ".tmp-cd34-winner.json"):
        path.write_bytes(bytes(5000))
    for path in (trial.weights, trial.log(1)):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(300))
    return study


def command(study: RecordedStudy, *options: str) -> list[str]:
    return ["--study", study.name, "--root", str(study.root.path), *options]


def test_cleaning_removes_checkpoints_and_leftovers_and_nothing_else(
    study: RecordedStudy, study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = analysis.to_json(analysis.table(analysis.load(study.root.path, cache=False), "tiny"))
    before = tree(study.root.path)
    assert main(command(study, "--clean", "--dry-run")) == 0
    assert "to remove: 4 files of 20.0 kB" in capsys.readouterr().out
    assert tree(study.root.path) == before
    assert main(command(study, "--clean")) == 0
    assert "removed 4 files of 20.0 kB" in capsys.readouterr().out
    gone = before.keys() - tree(study.root.path).keys()
    names = {"checkpoint.pt", "job.lock", ".tmp-ab12-weights.pt", ".tmp-cd34-winner.json"}
    assert {Path(path).name for path in gone} == names
    assert analysis.to_json(analysis.table(analysis.load(study.root.path, cache=False), "tiny")) == table
    backend = FakeBackend()
    run(planned(study_file, tmp_path), study.root, backend)
    assert backend.jobs == []
    assert main(command(study, "--clean")) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_cleaning_keeps_the_checkpoint_of_a_run_that_will_go_on(study_file: Path, tmp_path: Path) -> None:
    study = launched(
        study_file, tmp_path, backend=FakeBackend(lambda job, n: Failure.PREEMPTED), stop=after(3, Stop.WITH_JOBS)
    )
    trial = study.rows[0].directory.trial(0)
    trial.checkpoint.write_bytes(bytes(100))
    assert main(command(study, "--clean")) == 0
    assert trial.checkpoint.exists()


def test_cleaning_takes_the_checkpoints_of_superseded_runs_and_of_rows_that_began_again(
    study_file: Path, tmp_path: Path
) -> None:
    def fails(job: Job, attempt: int) -> Failure | None:
        return Failure.PREEMPTED if "/confirm/2-" in job.command[3] else None

    study = launched(study_file, tmp_path, backend=FakeBackend(fails), stop=after(40, Stop.WITH_JOBS))
    row = study.rows[0].directory
    superseded = next(run for run in row.final_runs() if not run.result.exists())
    superseded.superseded.write_text("trial 2 is the row's winner now\n")
    aside = row.path / "failed-1" / "trials" / "0" / "checkpoint.pt"
    aside.parent.mkdir(parents=True)
    for path in (superseded.checkpoint, aside):
        path.write_bytes(bytes(100))
    assert main(command(study, "--clean")) == 0
    assert not superseded.checkpoint.exists()
    assert not aside.exists()


@pytest.mark.parametrize("options", [["--clean"], ["--archive", "a.tar.gz"]])
def test_both_refuse_while_a_controller_is_at_work(
    study: RecordedStudy, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with take_rows(study.row_directories()[:1]):
        assert main(command(study, *options)) == 2
    assert f"{options[0]}: a controller is at work: " in capsys.readouterr().err
    assert study.rows[0].directory.trial(0).checkpoint.exists()


def test_disk_use_is_told_by_kind_and_by_what_is_finished(study: RecordedStudy) -> None:
    study.rows[0].directory.trial(1).result.unlink()
    used = disk_use(study)
    assert used["finished", "checkpoints"] == 5000
    assert used["finished", "weights"] == used["finished", "logs"] == 300
    assert used["unfinished", "other"] > 0
    assert sum(used.values()) == sum(
        size for path, (size, _) in tree(study.root.path).items() if not path.startswith("studies")
    )


def test_an_archive_unpacks_to_the_same_table_and_a_relaunch_finds_all_done(
    study: RecordedStudy, study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(study.root.path)
    target = tmp_path / "tiny.tar.gz"
    assert main(command(study, "--archive", str(target))) == 0
    assert tree(study.root.path) == before, "an archive deletes nothing"
    said = capsys.readouterr().out
    assert "tar xf FILE.tar.gz && mmkd table --root tiny --study tiny" in said
    elsewhere = tmp_path / "elsewhere"
    with tarfile.open(target) as tar:
        tar.extractall(elsewhere, filter="data")
    assert "mmkd table" in (elsewhere / "tiny" / "README.txt").read_text()
    names = {path.name for path in elsewhere.rglob("*") if path.is_file()}
    assert {"result.h5", "weights.pt", "config.json", "journal.log", "winner.json", "1.txt"} <= names
    assert not {name for name in names if name.endswith(".lock") or name.startswith(".tmp-") or name == "checkpoint.pt"}
    tables = [
        analysis.table(analysis.load(root, cache=False), "tiny") for root in (study.root.path, elsewhere / "tiny")
    ]
    assert analysis.to_json(tables[0]) == analysis.to_json(tables[1])
    shutil.move(elsewhere / "tiny", elsewhere / "runs")
    backend = FakeBackend()
    run(planned(study_file, elsewhere), Root(elsewhere / "runs"), backend)
    assert backend.jobs == []


def test_an_archive_keeps_the_checkpoints_of_unfinished_runs(study: RecordedStudy, tmp_path: Path) -> None:
    trial = study.rows[0].directory.trial(0)
    trial.result.unlink()
    assert main(command(study, "--archive", str(tmp_path / "a.tgz"))) == 0
    with tarfile.open(tmp_path / "a.tgz") as tar:
        assert any(name.endswith("trials/0/checkpoint.pt") for name in tar.getnames())


def test_an_archive_brings_the_code_that_its_rows_ran(study: RecordedStudy, tmp_path: Path) -> None:
    code = study.root.code
    ours, patch, other = code / "aaaaaaaaaaaa", code / "cccccccccccc-dddddddddddd.patch", code / "bbbbbbbbbbbb"
    for directory, digest in ((ours, "111111111111"), (other, "222222222222")):
        (directory / "mmkd").mkdir(parents=True)
        (directory / "mmkd" / "trial.py").write_text("")
        write_json(directory / "snapshot.json", {"code": digest, "git": {}, "taken": 1.0})
    patch.write_text("a patch")
    entry = {"code": "111111111111", "commit": "c" * 40, "diff": "d" * 12, "since": 0.0}
    write_json(study.rows[0].directory.code, [entry])
    assert main(command(study, "--archive", str(tmp_path / "a.tgz"))) == 0
    with tarfile.open(tmp_path / "a.tgz") as tar:
        kept = {name for name in tar.getnames() if name.startswith("tiny/code/")}
    assert kept == {
        "tiny/code/aaaaaaaaaaaa/mmkd/trial.py", "tiny/code/aaaaaaaaaaaa/snapshot.json", f"tiny/code/{patch.name}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("a.zip", "give a name that ends in .tar.gz or .tgz"),
        ("nowhere/a.tgz", "does not exist; make it first"),
        ("b.tgz", "b.tgz: exists; choose another name\n"),
    ],
)
def test_an_archive_is_refused_where_it_cannot_be_written(
    study: RecordedStudy, tmp_path: Path, name: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.tgz").write_text("precious")
    assert main(command(study, "--archive", str(tmp_path / name))) == 2
    assert complaint in capsys.readouterr().err
    assert (tmp_path / "b.tgz").read_text() == "precious"


def test_an_archive_that_does_not_read_back_is_no_archive(study: RecordedStudy, tmp_path: Path) -> None:
    target = tmp_path / "a.tgz"
    assert main(command(study, "--archive", str(target))) == 0
    with tarfile.open(target) as tar:
        files = {entry.name: tar.extractfile(entry) for entry in tar if entry.isfile()}
        digests = {name: hashlib.sha256(file.read()).hexdigest() for name, file in files.items() if file}
    _verify(target, digests)
    with pytest.raises(ArchiveDamaged, match="read back wrong: 1 file, the first tiny/studies/tiny"):
        _verify(target, digests | {"tiny/studies/tiny.json": "0" * 64})
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 255
    target.write_bytes(content)
    with pytest.raises((ArchiveDamaged, OSError)):
        _verify(target, digests)
