"""The straightforward way of benchmarks/training.py, written out plainly, and mmkd's: one loss, one gradient."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmkd.config import Network
from mmkd.data.tensors import Samples

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import training_work as work
from training_plain import Hdf5Batches

TINY = work.Shape(
    "small",
    Network(width=12, heads=3, layers=3, fusion_layers=1),
    Network(width=8, heads=2, layers=2, fusion_layers=2),
    Network(width=8, heads=2, layers=1, fusion_layers=1),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "data.h5"
    work.make_data(path, TINY, 12)
    return path


def in_double(lesson: Any) -> Any:
    """The same in float64."""
    for module in (lesson.network, lesson.method):
        if module is not None:
            module.double()
    train = lesson.train
    lesson.train = Samples({m: x.double() for m, x in train.x.items()}, train.y, None, train.ids)
    if lesson.teacher is not None:
        lesson.teacher.network.double()
        lesson.teacher.remember(lesson.train.x)
    return lesson


@pytest.mark.parametrize("variant", [{}, {"mask": "mult"}, {"self_attention": "updated"}], ids=str)
@pytest.mark.parametrize("row", work.ROWS)
def test_both_ways_agree_in_loss_and_gradient(row: str, variant: dict[str, str], data: Path, tmp_path: Path) -> None:
    networks = (TINY.teacher, TINY.student, TINY.multimodal)
    shape = work.Shape("small", *(network.model_copy(update=variant) for network in networks))
    lesson = in_double(work.make_lesson(work.ROWS[row], shape, data, torch.device("cpu"), dropout=False))
    differences = work.agreement(work.ROWS[row], lesson, tmp_path, 4)
    assert set(differences) == ({"logits"} if "inference" in row else {"loss", "gradient"})
    assert all(value < 1e-9 for value in differences.values())


@pytest.mark.parametrize("way", ["plain", "mmkd"])
@pytest.mark.parametrize("row", ["teacher", "edam_up", "student_inference"])
def test_a_step_of_either_way_moves_what_is_trained_and_nothing_else(
    row: str, way: Any, data: Path, tmp_path: Path
) -> None:
    lesson = work.make_lesson(work.ROWS[row], TINY, data, torch.device("cpu"))
    before = {name: value.clone() for name, value in lesson.network.state_dict().items()}
    frozen = {} if lesson.teacher is None else {n: v.clone() for n, v in lesson.teacher.network.state_dict().items()}
    work.make_step(work.ROWS[row], way, lesson, tmp_path, 4)()
    moved = any(not torch.equal(value, before[name]) for name, value in lesson.network.state_dict().items())
    assert moved == (not work.ROWS[row].inference)
    assert all(torch.equal(v, frozen[n]) for n, v in (lesson.teacher.network.state_dict() if frozen else {}).items())


def test_batches_from_the_file_are_the_samples_in_memory(data: Path) -> None:
    lesson = work.make_lesson(work.ROWS["teacher"], TINY, data, torch.device("cpu"))
    index = torch.tensor([7, 2, 9])
    x, y = Hdf5Batches(data, "train", list(lesson.train.x), torch.device("cpu")).read(index)
    expected, labels = lesson.train.at(index)
    torch.testing.assert_close(x, expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(y, labels)
