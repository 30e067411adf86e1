"""Records on disk: byte for byte as they have always been written, and refused with file, key, value and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel
from recorded import row_record, winner_record

from mmkd.errors import UserError
from mmkd.files import write_json
from mmkd.records import (
    CodeRecord,
    CodeVersion,
    PaperFigures,
    RowRecord,
    SnapshotRecord,
    SplitRecord,
    StudyRecord,
    StudyRow,
    WinnerRecord,
    as_written,
    differences,
    find_record,
    read_record,
    read_study,
    store_split,
    write_record,
)
from mmkd.rundir import Root

STUDY = """{
  "name": "demo",
  "title": "Étude",
  "control": "crd",
  "max_gpu_hours": null,
  "rows": [
    {
      "name": "crd",
      "label": "CRD",
      "group": null,
      "paper": {
        "accuracy": 49.7,
        "f1": 46.5,
        "teacher_accuracy": 50.0,
        "teacher_f1": null
      },
      "directory": "crd-00000000",
      "trials": 3,
      "seeds": [
        1,
        2
      ],
      "teachers": []
    }
  ]
}
"""
WINNER = """{
  "trial": 2,
  "value": 0.5,
  "params": {
    "learning_rate": 0.001
  },
  "trials": 3,
  "numbers": 4,
  "selection": "loss",
  "seeds": [
    1
  ],
  "confirm": {
    "1": "1-abcdef01"
  }
}
"""
CODE = """[
  {
    "code": "aaaa",
    "since": 1.5
  },
  {
    "code": "bbbb",
    "commit": "cccc",
    "diff": "",
    "since": 2.5
  }
]
"""
ROW = """{
  "digest": "00",
  "identity": {
    "algorithm": 1,
    "data": "ff",
    "primary": "video",
    "pairing": "others",
    "method": "kd",
    "level": null,
    "settings": {},
    "space": {
      "learning_rate": {
        "low": 0.0001,
        "high": 0.01,
        "log": true
      }
    },
    "fixed": {
      "beta": 1.0
    },
    "sampler": "auto",
    "training": {
      "epochs": 3
    },
    "student": {
      "width": 8
    },
    "teacher": null,
    "selection": "loss"%s
  },
  "data": {
    "path": "/d.h5",
    "source": "synthetic",
    "fingerprint": "ff",
    "modalities": [
      "video"
    ],
    "classes": [
      "a",
      "b"
    ]
  }
}
"""


def study() -> StudyRecord:
    paper = PaperFigures(accuracy=49.7, f1=46.5, teacher_accuracy=50.0, teacher_f1=None)
    row = StudyRow(
        name="crd",
        label="CRD",
        group=None,
        paper=paper,
        directory="crd-00000000",
        trials=3,
        seeds=(1, 2),
        teachers=(),
    )
    return StudyRecord(name="demo", title="Étude", control="crd", max_gpu_hours=None, rows=(row,))


def winner() -> WinnerRecord:
    params, confirm = {"learning_rate": 0.001}, {1: "1-abcdef01"}
    return WinnerRecord(
        trial=2, value=0.5, params=params, trials=3, numbers=4, selection="loss", seeds=(1,), confirm=confirm
    )


def row(**identity: str) -> RowRecord:
    what = {"algorithm": 1, "data": "ff", "primary": "video", "pairing": "others", "method": "kd", "level": None}
    space = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    search = {"settings": {}, "space": space, "fixed": {"beta": 1.0}, "sampler": "auto"}
    rest = {"training": {"epochs": 3}, "student": {"width": 8}, "teacher": None, "selection": "loss", **identity}
    names = {"modalities": ("video",), "classes": ("a", "b")}
    data = {"path": "/d.h5", "source": "synthetic", "fingerprint": "ff", **names}
    return RowRecord.model_validate({"digest": "00", "identity": {**what, **search, **rest}, "data": data})


def code() -> CodeRecord:
    return CodeRecord(
        (CodeVersion(code="aaaa", since=1.5), CodeVersion(code="bbbb", commit="cccc", diff="", since=2.5))
    )


SNAPSHOT = """{
  "git": {
    "commit": "cccc",
    "diff": ""
  },
  "code": "aaaa",
  "taken": 3.5
}
"""


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (SnapshotRecord(git={"commit": "cccc", "diff": ""}, code="aaaa", taken=3.5), SNAPSHOT),
        (study(), STUDY),
        (winner(), WINNER),
        (code(), CODE),
        (row(), ROW % ""),
        (row(pruner="median"), ROW % ',\n    "pruner": "median"'),
    ],
    ids=["snapshot", "study", "winner", "code", "row", "pruned row"],
)
def test_a_record_is_written_byte_for_byte_as_ever_and_read_back_equal(
    tmp_path: Path, record: BaseModel, text: str
) -> None:
    path = tmp_path / "record.json"
    write_record(path, record)
    assert path.read_text(encoding="utf-8") == text
    assert read_record(path, type(record)) == record
    write_record(path, read_record(path, type(record)))
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("schema", "facts", "said"),
    [
        (WinnerRecord, winner_record({}, trials="x"), r"record\.json: trials: .*'x'.*launch the study again"),
        (WinnerRecord, {"trial": 1}, r"record\.json: value: Field required"),
        (RowRecord, row_record(space={"beta": {"low": "y", "high": 1}}), r"identity\.space\.beta\.low: .*'y'"),
        (StudyRecord, as_written(study()) | {"control": "nobody"}, r"control = 'nobody' is no row"),
        (StudyRecord, as_written(study()) | {"title": "a\nb"}, r"title: .*one line"),
    ],
)
def test_an_invalid_record_is_refused_with_key_value_and_remedy(
    tmp_path: Path, schema: type[BaseModel], facts: object, said: str
) -> None:
    path = tmp_path / "record.json"
    write_json(path, facts)
    with pytest.raises(UserError, match=said):
        read_record(path, schema)
    assert find_record(path, schema) is None


def test_a_drawn_split_is_stored_once_under_its_digest_and_another_there_is_refused(tmp_path: Path) -> None:
    parts = {"train": {"s1": ("a", "b")}, "valid": {"s2": ("c",)}, "test": {"s3": ("d",)}}
    split = SplitRecord(scheme="group-folds", parts=parts)
    path = store_split(Root(tmp_path), split)
    assert path == tmp_path / "splits" / f"{split.digest[:16]}.json"
    assert read_record(path, SplitRecord) == split
    before = path.stat().st_mtime_ns
    assert store_split(Root(tmp_path), split) == path
    assert path.stat().st_mtime_ns == before
    write_record(path, SplitRecord(scheme="group-folds", parts={**parts, "train": {"s1": ("a",)}}))
    with pytest.raises(UserError, match=r"\.json: not the split that it is named after; remove it"):
        store_split(Root(tmp_path), split)
    path.write_text("{")
    with pytest.raises(UserError, match=r"\.json: .*remove it and launch again"):
        store_split(Root(tmp_path), split)


def test_unknown_keys_are_ignored_and_those_of_an_identity_kept(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_json(path, {**winner_record({1: "1-ab"}), "new": 1})
    assert read_record(path, WinnerRecord).trial == 0
    write_json(path, row_record(new={"key": 1}))
    assert as_written(read_record(path, RowRecord).identity)["new"] == {"key": 1}


def test_a_missing_record_is_none_or_an_error(tmp_path: Path) -> None:
    assert find_record(tmp_path / "winner.json", WinnerRecord) is None
    with pytest.raises(UserError, match="No such file"):
        read_record(tmp_path / "winner.json", WinnerRecord)


def test_an_unknown_study_is_refused_with_those_that_there_are_and_leftovers_are_none(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    write_record(tmp_path / "studies" / "demo.json", study())
    write_record(tmp_path / "studies" / ".tmp-ab12-demo.json", study())
    assert read_study(tmp_path, "demo") == study()
    with pytest.raises(UserError, match=r"unknown study 'dem'; did you mean demo\? \(choices: demo\)"):
        read_study(tmp_path, "dem")


def test_differences_are_told_leaf_by_leaf() -> None:
    values = [{"a": {"b": 1, "c": 2}, "d": {}}, {"a": {"b": 1, "c": 3}, "d": {}}, {"a": {"b": 1}, "d": {}, "e": None}]
    assert differences(values) == {"a.c": [2, 3, None], "e": [None, None, None]}
    assert differences([]) == {}
