"""The presets count exactly as many parameters as the specification says."""

from pathlib import Path

import pytest

from mmkd.config import Network
from mmkd.data import DatasetInfo
from mmkd.models.network import build_student, build_teacher, count_parameters
from mmkd.models.pairings import resolve_pairing
from mmkd.presets import PRESETS


def mosei_info() -> DatasetInfo:
    return DatasetInfo(
        path=Path("mosei.h5"),
        modalities=("video", "audio", "language"),
        classes=tuple("abcdefg"),
        label_kind="class",
        score_range=None,
        vectors={},
        steps={"video": 500, "audio": 500, "language": 50},
        features={"video": 35, "audio": 74, "language": 300},
        sizes={},
        class_counts={},
        source="",
        license="",
        notes="",
        fingerprint="",
        layout_version=1,
    )


@pytest.mark.parametrize(("name", "expected"), [("mult_paper", 1_574_767), ("paper_teacher", 1_801_591)])
def test_a_teacher_preset_has_exactly_the_parameters_of_the_specification(name: str, expected: int) -> None:
    teacher = build_teacher(mosei_info(), Network(**PRESETS[name]), None)
    assert count_parameters(teacher) == expected


def test_the_student_preset_has_exactly_the_parameters_of_the_specification() -> None:
    pairing = resolve_pairing("language_audio", "video", ["video", "audio", "language"])
    student = build_student(mosei_info(), Network(**PRESETS["paper_student"]), "video", pairing)
    assert count_parameters(student) == 674_631
