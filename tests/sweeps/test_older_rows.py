"""Rows of an older algorithm version stay what they were, and a launch says so."""

from dataclasses import replace
from pathlib import Path

import pytest
from launched import launched, planned, tree

from mmkd.records import read_study, write_record
from mmkd.rundir import Root
from sweeps.launched_study import older_rows, record_study
from sweeps.study_file import load_study


def test_a_launch_keeps_the_table_of_older_rows_under_another_name(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, study = Root(tmp_path / "runs"), load_study(study_file, [])
    with monkeypatch.context() as older:
        older.setattr("sweeps.rows.ALGORITHM_VERSION", 1)
        launched(study_file, tmp_path)
    former = read_study(root.path, "tiny")
    before = tree(root.path / "rows")
    assert older_rows(root, "tiny") == (
        "2 rows of algorithm version 1 (now 2): kept as they are, and this launch begins new rows; "
        "their table becomes tiny-v1"
    )
    assert older_rows(root, "another").endswith("this launch begins new rows")
    for _ in range(2):  # the second launch finds new rows in the study's record
        record_study(root, "tiny", study, planned(study_file, tmp_path))
        kept, now = (read_study(root.path, name) for name in ("tiny-v1", "tiny"))
        assert kept == former.model_copy(update={"name": "tiny-v1"})
        assert not {row.directory for row in now.rows} & {row.directory for row in kept.rows}
        assert tree(root.path / "rows") == before
        launched(study_file, tmp_path)
        before = tree(root.path / "rows")
    assert sorted(path.name for path in (root.path / "studies").glob("*.json")) == ["tiny-v1.json", "tiny.json"]


def test_a_root_without_older_rows_is_not_remarked_on(study_file: Path, tmp_path: Path) -> None:
    root = Root(tmp_path / "runs")
    assert older_rows(root, "tiny") == ""
    launched(study_file, tmp_path)
    assert older_rows(root, "tiny") == ""
    record_study(root, "tiny", load_study(study_file, []), planned(study_file, tmp_path))
    assert [path.name for path in (root.path / "studies").glob("*.json")] == ["tiny.json"]


def test_a_study_of_the_same_name_on_other_data_replaces_no_record(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, study = Root(tmp_path / "runs"), load_study(study_file, [])
    rows = planned(study_file, tmp_path)
    record_study(root, "tiny", study, rows)
    for row in rows:
        row.directory.path.mkdir(parents=True)
        write_record(row.directory.row, row.describe())
    former = read_study(root.path, "tiny")
    others = [replace(row, info=replace(row.info, fingerprint="e" * 64)) for row in rows]
    for _ in range(2):
        record_study(root, "tiny", study, others)
    kept = f"tiny-{rows[0].info.fingerprint[:8]}"
    assert read_study(root.path, kept) == former.model_copy(update={"name": kept})
    assert f"is now {kept}" in capsys.readouterr().out
    assert sorted(path.stem for path in (root.path / "studies").glob("*.json")) == ["tiny", kept]
