"""What a study leaves on disk: readable as the user's umask says, without secrets, by names that nobody can guess."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from refusals import run
from tiny_study import STUDY, write_tiny_data

from mmkd.data import read_info
from mmkd.data.staging import STAGE, stage
from mmkd.data.untrusted import memory_for
from mmkd.files import write_text
from mmkd.lock import FileLock
from slurm.devcluster.options import Refused, claim_directory
from sweeps.launch import main as launch

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "s3cr3t-in-the-environment",
    "MMKD_TOKEN": "s3cr3t-of-ours",
    "SLURM_JWT": "s3cr3t-of-slurm",
}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of a study of one row, launched in this process under the umask 027 with secrets in the environment."""
    folder = tmp_path_factory.mktemp("traces")
    write_tiny_data(folder / "tiny.h5")
    (folder / "tiny.toml").write_text(f'data = "{folder / "tiny.h5"}"\n' + "[[rows]]".join(STUDY.split("[[rows]]")[:2]))
    options = ["--trials", "1", "--seeds", "1", "--epochs", "1", "--cluster", "debug", "--device", "cpu"]
    before = os.umask(0o027)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        try:
            assert run(launch, "--study", folder / "tiny.toml", "--root", folder / "runs", *options) == 0
        finally:
            os.umask(before)
    return folder / "runs"


def test_files_and_folders_are_made_with_the_users_umask(launched: Path) -> None:
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in launched.rglob("*")}
    assert len(found) > 20
    odd = {str(path): oct(mode) for path, mode in found.items() if mode != (0o750 if path.is_dir() else 0o640)}
    assert odd == {}


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_that_appears_by_rename_has_the_mode_of_any_other(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "file", "text")
        with FileLock(tmp_path / "lock"):
            assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == mode
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_no_file_of_a_study_holds_a_secret_of_the_environment(launched: Path) -> None:
    for path in launched.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"s3cr3t" not in content, path
            assert not [name for name in SECRETS if name.encode() in content], path


def test_a_study_that_ended_leaves_no_lock_and_no_temporary_file(launched: Path) -> None:
    assert [path for path in launched.rglob("*") if path.name.startswith(".tmp-") or path.suffix == ".lock"] == []


def test_temporary_names_cannot_be_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (seen.append(Path(old).name), replace(old, new)))
    for _ in range(20):
        write_text(tmp_path / "file", "text")
    assert len(set(seen)) == 20
    assert all(len(name.removeprefix(".tmp-").partition("-")[0]) == 12 for name in seen)


def test_a_lock_is_not_written_through_a_link_that_somebody_planted(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("my thesis")
    (tmp_path / "x.lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        FileLock(tmp_path / "x.lock").acquire()
    assert precious.read_text() == "my thesis"


@pytest.mark.parametrize("planted", ["link", "dangling link", "folder", "lock"])
def test_what_somebody_planted_in_a_shared_temporary_folder_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small_data: Any, planted: str
) -> None:
    monkeypatch.setenv(STAGE, "1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    precious = tmp_path / "precious"
    precious.write_text("my thesis")
    info = read_info(small_data[0])
    copy = tmp_path / f"mmkd-{os.getuid()}-{info.fingerprint[:16]}.h5"
    if planted == "folder":
        copy.mkdir()
    elif planted == "lock":
        copy.with_suffix(".lock").symlink_to(precious)
    else:
        copy.symlink_to(precious if planted == "link" else tmp_path / "nowhere")
    if os.getuid() == 0:
        os.chown(copy if planted != "lock" else copy.with_suffix(".lock"), 65534, 65534, follow_symlinks=False)
    staged = stage(info)
    assert precious.read_text() == "my thesis"
    assert not (tmp_path / "nowhere").exists()
    if os.getuid() == 0:
        assert staged.path == info.path
        assert capsys.readouterr().err.startswith("warning: not staged, the data are read where they are: ")


def test_a_clusters_folder_is_its_owners_alone() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own has too long a name for a cluster
        here = Path(folder)
        (here / "other").mkdir(mode=0o700)
        (here / "open").mkdir(mode=0o755)
        (here / "full").mkdir(mode=0o700)
        (here / "full" / "thesis").touch()
        (here / "link").symlink_to(here / "other")
        for name, said in (("open", "others may enter"), ("full", "holds files"), ("link", "not a directory of yours")):
            with pytest.raises(Refused, match=said):
                claim_directory(here / name)
        claim_directory(here / "new")
        assert stat.S_IMODE((here / "new").stat().st_mode) == 0o700


def test_reading_a_foreign_file_may_take_only_so_much_memory(tmp_path: Path) -> None:
    (tmp_path / "small").touch()
    with memory_for(tmp_path / "small"):
        bytearray(2**20)
        with pytest.raises(MemoryError):
            bytearray(2**31)
    assert len(bytearray(2**21)) == 2**21, "and after it as before"
