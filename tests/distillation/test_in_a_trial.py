"""The methods in whole trials: what the trainer records of them, and when the teacher's outputs are kept."""

from __future__ import annotations

from typing import Any

import pytest

from mmkd.distillation.frozen_teacher import FrozenTeacher
from mmkd.metrics_log import read_metrics
from mmkd.training.trainer import Preempted


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("kd", {}),
        ("edam", {"size": "down"}),
        ("edam", {"size": "up"}),
        ("attention_distance", {"distance": "mse"}),
    ],
)
def test_a_trial_records_the_loss_and_with_upsampling_the_targets_entropy(
    lab: Any, method: str, settings: dict[str, Any]
) -> None:
    lines = read_metrics(lab.run(lab.student(method, settings=settings)))
    assert len(lines) == 3
    assert all(line["train_distillation"] >= 0 for line in lines)
    assert all(("train_target_entropy" in line) == (settings.get("size") == "up") for line in lines)


def test_a_trial_with_upsampling_that_was_interrupted_ends_with_the_same_numbers(lab: Any, numbers_of: Any) -> None:
    config = lab.student("edam", settings={"size": "up"})
    whole = lab.run(config, number=0)
    asked = iter([False] * 8 + [True] * 9)
    with pytest.raises(Preempted):
        lab.run(config, number=1, asked_to_end=lambda: next(asked))
    assert numbers_of(lab.run(config, number=1)) == numbers_of(whole)


@pytest.mark.parametrize(("noise", "remembers"), [(0.0, True), (0.1, False)])
def test_the_teachers_outputs_are_kept_only_without_augmentation(
    lab: Any, monkeypatch: pytest.MonkeyPatch, noise: float, remembers: bool
) -> None:
    asked: list[object] = []
    on_train = FrozenTeacher.on_train
    monkeypatch.setattr(FrozenTeacher, "on_train", lambda self, kept: asked.append(kept) or on_train(self, kept))
    lab.run(lab.student("kd", training={"augmentation": {"noise": noise}}))
    assert bool(asked) == remembers
