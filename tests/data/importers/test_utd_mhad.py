from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from mmkd.config import SplitSettings
from mmkd.data import check_dataset, choose_split, divide, read_split
from mmkd.data.importers.utd_mhad import HIP_CENTRE, LEFT_HIP, RIGHT_HIP, SHOULDER_CENTRE, body_frame, import_utd_mhad
from mmkd.data.splits import missing_classes
from mmkd.errors import UserError


def _skeleton(rng: np.random.Generator, frames: int) -> np.ndarray:
    return rng.normal(size=(20, 3, 1)) + 0.1 * rng.normal(size=(20, 3, frames))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two actions by every subject, with lengths of their own, laid out as the authors do."""
    rng = np.random.default_rng(0)
    root = tmp_path / "UTD-MHAD"
    for kind in ("Inertial", "Skeleton"):
        (root / kind).mkdir(parents=True)
    for action in (1, 27):
        for subject in range(1, 9):
            name = f"a{action}_s{subject}_t1"
            inertial = rng.normal(size=(20 + subject, 6))
            scipy.io.savemat(root / "Inertial" / f"{name}_inertial.mat", {"d_iner": inertial})
            scipy.io.savemat(root / "Skeleton" / f"{name}_skeleton.mat", {"d_skel": _skeleton(rng, 5 + subject)})
    (root / "readme.txt").write_text("not a recording")
    return root


def test_a_folder_becomes_a_cross_subject_data_file(folder: Path, tmp_path: Path) -> None:
    import_utd_mhad(folder, tmp_path / "utd.h5")
    info = check_dataset(tmp_path / "utd.h5")
    assert info.modalities == ("skeleton", "accelerometer", "gyroscope")
    assert info.steps == {"skeleton": 40, "accelerometer": 96, "gyroscope": 96}
    assert info.features == {"skeleton": 60, "accelerometer": 3, "gyroscope": 3}
    assert info.vectors == {"skeleton": 3, "accelerometer": 3, "gyroscope": 3}
    assert len(info.classes) == 27
    assert read_split(tmp_path / "utd.h5", "train").ids == [f"a{a}_s{s}_t1" for a in (1, 27) for s in (1, 3, 5)]
    assert read_split(tmp_path / "utd.h5", "valid").ids == ["a1_s7_t1", "a27_s7_t1"]
    assert read_split(tmp_path / "utd.h5", "train").groups == ["subject 1", "subject 3", "subject 5"] * 2
    assert read_split(tmp_path / "utd.h5", "test").labels.tolist() == [0] * 4 + [26] * 4


def test_the_validation_subject_is_an_option(folder: Path, tmp_path: Path) -> None:
    import_utd_mhad(folder, tmp_path / "utd.h5", valid_subject=3)
    assert read_split(tmp_path / "utd.h5", "valid").ids == ["a1_s3_t1", "a27_s3_t1"]
    with pytest.raises(UserError, match="valid subject 2: choose one of 1, 3, 5, 7"):
        import_utd_mhad(folder, tmp_path / "utd.h5", valid_subject=2)


def test_resampling_is_linear_and_keeps_the_ends(folder: Path, tmp_path: Path) -> None:
    import_utd_mhad(folder, tmp_path / "utd.h5")
    given = scipy.io.loadmat(folder / "Inertial" / "a1_s1_t1_inertial.mat")["d_iner"][:, 3:]
    train = read_split(tmp_path / "utd.h5", "train", standardise=False)
    expected = [np.interp(np.linspace(0, 20, 96), np.arange(21), column) for column in given.T]
    np.testing.assert_allclose(train.arrays["gyroscope"][0], np.transpose(expected), atol=1e-6)
    assert (train.lengths["gyroscope"] == 96).all()


def test_native_lengths_are_kept_with_zeros_in_front(folder: Path, tmp_path: Path) -> None:
    import_utd_mhad(folder, tmp_path / "utd.h5", steps=None, raw=True)
    train = read_split(tmp_path / "utd.h5", "train", standardise=False)
    assert train.arrays["skeleton"].shape == (6, 13, 60)
    assert train.lengths["skeleton"].tolist() == [6, 8, 10, 6, 8, 10]
    given = scipy.io.loadmat(folder / "Skeleton" / "a1_s1_t1_skeleton.mat")["d_skel"]
    assert not train.arrays["skeleton"][0, :7].any()
    np.testing.assert_allclose(train.arrays["skeleton"][0, -1].reshape(20, 3), given[:, :, -1], rtol=1e-6)


def test_the_body_frame_does_not_depend_on_where_the_camera_stands_or_how_tall_one_is() -> None:
    skeleton = _skeleton(np.random.default_rng(1), 9)
    angle = 0.7
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    elsewhere = 1.3 * np.einsum("ab,jbt->jat", turn, skeleton) + np.array([1.0, -2.0, 3.0])[:, None]
    np.testing.assert_allclose(body_frame(elsewhere), body_frame(skeleton), atol=1e-9)


def test_in_the_body_frame_hips_lie_along_x_and_the_torso_is_one_long() -> None:
    rest = body_frame(_skeleton(np.random.default_rng(2), 9))[:, :, :5].mean(axis=2)
    np.testing.assert_allclose(rest[HIP_CENTRE], 0.0, atol=1e-12)
    across = rest[RIGHT_HIP] - rest[LEFT_HIP]
    assert across[0] > 0
    assert abs(across[2]) < 1e-12
    assert np.linalg.norm(rest[SHOULDER_CENTRE]) == pytest.approx(1.0)


def _pack_tar(folder: Path, archive: Path) -> None:
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(folder, ".")
        link = tarfile.TarInfo("Inertial/a2_s1_t1_inertial.mat")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        outside = tarfile.TarInfo("../../outside.txt")
        tar.addfile(outside, io.BytesIO())


def _pack_zip(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.rglob("*.mat")):
            packed.write(path, path.relative_to(folder.parent))
        packed.writestr("__MACOSX/._a1_s1_t1_inertial.mat", b"")
        packed.writestr("../../outside.txt", b"")


@pytest.mark.parametrize("pack", [_pack_tar, _pack_zip])
def test_archives_give_what_the_folder_gives_and_unpack_nothing(
    folder: Path, tmp_path: Path, pack: Callable[[Path, Path], None]
) -> None:
    pack(folder, tmp_path / "archive")
    before = sorted(os.listdir(tmp_path))
    expected = import_utd_mhad(folder, tmp_path / "folder.h5")
    assert import_utd_mhad(tmp_path / "archive", tmp_path / "packed.h5") == expected
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "folder.h5", "packed.h5"])


INERTIAL, SKELETON = "Inertial/a1_s2_t1_inertial.mat", "Skeleton/a27_s5_t1_skeleton.mat"


@pytest.mark.parametrize(
    ("file", "variables", "message"),
    [
        (INERTIAL, {"other": 1}, "has no variable 'd_iner'"),
        (INERTIAL, {"d_iner": np.zeros((9, 5))}, r"'d_iner' is float64 \(9, 5\), not numbers \('T', 6\)"),
        (INERTIAL, {"d_iner": np.zeros((0, 6))}, r"'d_iner' is float64 \(0, 6\)"),
        (INERTIAL, {"d_iner": np.full((9, 6), np.nan)}, "'d_iner' holds NaN"),
        (INERTIAL, {"d_iner": "text"}, "'d_iner' is <U4"),
        (SKELETON, {"d_skel": np.zeros((20, 3))}, r"'d_skel' is float64 \(20, 3\)"),
        (SKELETON, {"d_skel": np.zeros((20, 3, 4))}, "torso or hip line has no length"),
    ],
)
def test_a_bad_recording_is_named(
    folder: Path, tmp_path: Path, file: str, variables: dict[str, object], message: str
) -> None:
    scipy.io.savemat(folder / file, variables)
    with pytest.raises(UserError, match=f"{file}: .*{message}"):
        import_utd_mhad(folder, tmp_path / "utd.h5")
    assert not (tmp_path / "utd.h5").exists()


def test_a_recording_that_is_no_matlab_file_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / INERTIAL).write_bytes(b"broken")
    with pytest.raises(UserError, match=f"{INERTIAL}: not a readable MATLAB file"):
        import_utd_mhad(folder, tmp_path / "utd.h5")


def test_incomplete_and_foreign_sources_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / SKELETON).unlink()
    with pytest.raises(UserError, match=r"a27_s5_t1_skeleton\.mat is missing"):
        import_utd_mhad(folder, tmp_path / "utd.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no file like"):
        import_utd_mhad(tmp_path / "empty", tmp_path / "utd.h5")
    with pytest.raises(UserError, match="no such directory or archive"):
        import_utd_mhad(tmp_path / "none", tmp_path / "utd.h5")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(UserError, match="not a whole tar or zip archive"):
        import_utd_mhad(tmp_path / "text", tmp_path / "utd.h5")


def test_a_truncated_archive_is_named(folder: Path, tmp_path: Path) -> None:
    _pack_tar(folder, tmp_path / "archive")
    content = (tmp_path / "archive").read_bytes()
    (tmp_path / "archive").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="archive: not a whole tar or zip archive"):
        import_utd_mhad(tmp_path / "archive", tmp_path / "utd.h5")


def test_subjects_missing_from_a_split_are_named(folder: Path, tmp_path: Path) -> None:
    for path in folder.rglob("*_s7_*.mat"):
        path.unlink()
    with pytest.raises(UserError, match="no recording of subject 7, so 'valid' is empty"):
        import_utd_mhad(folder, tmp_path / "utd.h5")


def _real_archive() -> Path:
    beside = Path(__file__).parents[4] / "shared" / "data" / "utd_mhad_inertial_skeleton.tar.xz"
    return Path(os.environ.get("MMKD_UTD_MHAD", beside))


@pytest.mark.skipif(not _real_archive().exists(), reason="UTD-MHAD is not here; set MMKD_UTD_MHAD to its archive")
def test_the_real_archive_has_861_trials_and_subjects_never_mix(tmp_path: Path) -> None:
    import_utd_mhad(_real_archive(), tmp_path / "utd.h5")
    info = check_dataset(tmp_path / "utd.h5")
    assert info.sizes == {"train": 323, "valid": 108, "test": 430}
    assert all(min(counts) > 0 for counts in info.class_counts.values())
    subjects = {n: {i.split("_")[1] for i in read_split(tmp_path / "utd.h5", n, []).ids} for n in info.sizes}
    assert subjects == {"train": {"s1", "s3", "s5"}, "valid": {"s7"}, "test": {"s2", "s4", "s6", "s8"}}
    assert info.group_counts["valid"] == {"subject 7": 108}
    replicates = [divide(info, choose_split(info, SplitSettings(scheme="group-folds"), r)) for r in range(16)]
    for partition in (replicates[:8], replicates[8:]):
        tested = [group for one in partition for group in one.group_counts["test"]]
        assert sorted(tested) == [f"subject {n}" for n in range(1, 9)]
        assert sum(one.sizes["test"] for one in partition) == 861
    assert all(len(one.group_counts["valid"]) == 1 and missing_classes(one) == {} for one in replicates)
    assert len({one.split.digest for one in replicates if one.split}) == 16
    skeleton = read_split(tmp_path / "utd.h5", "train", ["skeleton"], standardise=False).arrays["skeleton"]
    height = skeleton.reshape(-1, 40, 20, 3)[:, 0, :, 1].mean(axis=0)
    assert height.argmax() == 0  # the head
    assert set(height.argsort()[:4]) == {14, 15, 18, 19}  # ankles and feet


def test_a_folder_with_the_two_archives_of_the_authors_page_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "zips").mkdir()
    for kind in ("Inertial", "Skeleton"):
        with zipfile.ZipFile(tmp_path / "zips" / f"{kind}.zip", "w") as archive:
            for path in folder.rglob(f"*_{kind.lower()}.mat"):
                archive.write(path, f"{kind}/{path.name}")
    assert import_utd_mhad(tmp_path / "zips", tmp_path / "a.h5") == import_utd_mhad(folder, tmp_path / "b.h5")


def test_a_file_of_version_7_3_is_named(folder: Path, tmp_path: Path) -> None:
    file = next(folder.rglob("*_inertial.mat"))
    file.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512, b" ") + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UserError, match=rf"{file.name}: a MATLAB file of version 7\.3; save it again with save"):
        import_utd_mhad(folder, tmp_path / "a.h5")
