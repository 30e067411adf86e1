"""Networks that are trained in bfloat16: what is computed in which type, and that they learn as float32's do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from mmkd.config import identity
from mmkd.distillation.frozen_teacher import Batch
from mmkd.models.attention import Taps
from mmkd.models.scores import Scores
from mmkd.result_file import read_result
from mmkd.training.evaluation import predict
from mmkd.training.lesson import make_lesson, prepare_torch
from mmkd.training.trainer import Trainer

if TYPE_CHECKING:
    from tests.conftest import Lab

NO_DROPOUT = {"dropout": {"embedding": 0, "residual": 0, "relu": 0, "output": 0}}
METHODS: dict[str, dict[str, Any]] = {
    "kd": {},
    "crd": {"level": "attention_maps"},
    "edam": {},
}


def trainer_of(lab: Lab, method: str, precision: str, **changes: Any) -> Trainer:
    training = {**changes.pop("training", {}), "precision": precision}
    config = lab.student(method, training=training, **changes)
    place = lab.place(config)
    return Trainer(config, make_lesson(config, place, prepare_torch(config)), place, None, lambda: None, lambda: False)


def batch_of(trainer: Trainer) -> Batch:
    index = torch.arange(5)
    return Batch(*trainer.lesson.train.at(index), index)


def types_within(module: nn.Module) -> list[torch.dtype]:
    """Of what the linear layers of a module return from now on."""
    seen: list[torch.dtype] = []
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    return seen


@pytest.mark.parametrize("method", METHODS)
def test_a_student_learns_in_bf16_as_in_fp32(method: str, lab: Lab) -> None:
    curves = []
    for number, precision in enumerate(("fp32", "bf16")):
        training = {"epochs": 5, "precision": precision}
        place = lab.run(lab.student(method, training=training, network=NO_DROPOUT, **METHODS[method]), number)
        curves.append(read_result(place.result).curves)
    assert curves[0]["train_classification"][-1] < 0.9 * curves[0]["train_classification"][0]
    for name in ("train_classification", "train_distillation", "valid_loss"):
        usual, half = (torch.tensor(curve[name]) for curve in curves)
        assert not torch.equal(usual, half)
        assert float((half - usual).abs().max()) < 0.03 * float(usual.mean())


@pytest.mark.parametrize(("precision", "within"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_networks_compute_in_the_precision_that_is_set_and_all_else_is_float32(
    precision: str, within: torch.dtype, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(lab, "edam", precision)
    teacher, method = trainer.lesson.teacher, trainer.lesson.method
    assert teacher is not None
    assert method is not None
    student_types, teacher_types = types_within(trainer.lesson.network), types_within(teacher.network)
    seen: list[torch.dtype] = []

    def tile_loss(name: str, mask: Tensor | None, a: Tensor, theirs: Scores, rows: slice) -> Tensor:
        seen.extend([a.dtype, theirs.query.dtype, theirs.key.dtype])
        return type(method).tile_loss(method, name, mask, a, theirs, rows)  # type: ignore[attr-defined]

    monkeypatch.setattr(method, "tile_loss", tile_loss)
    terms = trainer._step(batch_of(trainer))
    assert set(student_types) == set(teacher_types) == {within}
    assert set(seen) == {term.dtype for term in terms.values()} == {torch.float32}
    held = [value for state in trainer.optimizer.state.values() for value in state.values()]
    gradients = [parameter.grad for parameter in trainer.parameters if parameter.grad is not None]
    assert gradients
    assert {tensor.dtype for tensor in [*trainer.parameters, *gradients, *held]} == {torch.float32}


def test_evaluation_and_what_is_kept_of_a_teacher_are_in_float32(lab: Lab) -> None:
    trainer = trainer_of(lab, "kd", "bf16")
    teacher = trainer.lesson.teacher
    assert teacher is not None
    seen = [types_within(trainer.lesson.network), types_within(teacher.network)]
    predict(trainer.lesson.network, trainer.lesson.valid)
    teacher.on_train()
    teacher.remember(trainer.lesson.train.x, augmented=True)
    teacher.outputs(batch_of(trainer))
    assert [set(types) for types in seen] == [{torch.float32}] * 2


def test_what_is_tapped_beside_factors_is_in_float32_too(lab: Lab) -> None:
    trainer = trainer_of(lab, "crd", "bf16", level="post_attention")
    teacher = trainer.lesson.teacher
    assert teacher is not None
    assert trainer.lesson.method is not None
    name = next(iter(trainer.lesson.method.taps()))
    seen = teacher.tap(batch_of(trainer).x, {name: Taps(scores=True, attended=True)})[name]
    assert {tensor.dtype for tensor in [*seen.scores, *seen.attended]} == {torch.float32}
    outputs = trainer._run(batch_of(trainer))
    assert {outputs.logits.dtype, outputs.penultimate.dtype} == {torch.float32}
    assert {t.dtype for tapped in outputs.tapped.values() for t in tapped.attended} == {torch.float32}


def test_what_is_differentiated_twice_can_be_in_bf16(lab: Lab) -> None:
    settings = {"settings": {"weighting": "learned"}, "pairing": "multimodal", "network": NO_DROPOUT}
    found = []
    for precision in ("fp32", "bf16"):
        trainer = trainer_of(lab, "msd", precision, training={"held_out": 0.2}, **settings)
        trainer._step(batch_of(trainer))
        found.append(torch.tensor([float(term.detach()) for term in trainer._step(batch_of(trainer)).values()]))
    torch.testing.assert_close(*found, rtol=0.03, atol=0)


def test_a_teacher_is_trained_in_bf16_and_is_another_one(lab: Lab) -> None:
    usual, half = (lab.teacher(training={"precision": precision}, seed=5) for precision in ("fp32", "bf16"))
    assert identity(usual) != identity(half)
    assert identity(usual) == identity(lab.teacher(seed=5))
    losses = [read_result(lab.run(config).result).curves["valid_loss"] for config in (usual, half)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
