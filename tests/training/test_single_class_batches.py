"""Batches of a single class teach CRD's in-batch loss nothing, and are reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mmkd.config import Training
from mmkd.data import Split, write_dataset
from mmkd.data.tensors import epoch_batches
from mmkd.distillation.crd import in_batch_loss
from mmkd.training.lesson import single_class_batches


def test_the_loss_of_a_batch_of_one_class_is_0() -> None:
    u, v = torch.randn(1, 5, 4), torch.randn(1, 5, 4)
    assert in_batch_loss(u, v, torch.zeros(5, dtype=torch.long), 0.1, True) == 0


def test_batches_are_counted_as_the_trainer_draws_them() -> None:
    labels = torch.tensor([0] * 18 + [1] * 3)
    drawn = [labels[b] for epoch in range(4) for b in epoch_batches(21, 5, 7, epoch)]
    single = sum(len(set(batch.tolist())) == 1 for batch in drawn)
    assert single > 4
    assert single_class_batches(labels, Training(epochs=4, batch_size=5), 7) == (single, 20)


@pytest.mark.parametrize(("settings", "warned"), [({}, True), ({"mask_same_class": False}, False)])
def test_a_trial_says_how_many_there_are(
    lab: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], warned: bool
) -> None:
    rng = np.random.default_rng(0)
    splits = {
        name: Split(
            arrays={m: rng.normal(size=(21, 4, 3)).astype("f4") for m in ("video", "audio")},
            labels=np.array([0] * 18 + [1] * 3),
        )
        for name in ("train", "valid", "test")
    }
    path = tmp_path / "d.h5"
    fingerprint = write_dataset(path, splits, classes=["a", "b"], source="synthetic (tests)", license="none")
    data = {"path": str(path), "fingerprint": fingerprint}
    training = {"epochs": 2, "batch_size": 5}
    teacher = lab.teacher(data=data, training=training)
    lab.run(teacher)
    capsys.readouterr()
    student = lab.student("crd", level="attention_maps", settings=settings, data=data, training=training)
    lab.run(student.model_copy(update={"teacher": teacher}))
    assert ("of 10 training batches have samples of a single class" in capsys.readouterr().err) is warned
