"""Hinton's KD against its definition, and what a teacher remembers against what it computes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from distillation_cases import PAIRINGS, assert_only_the_student_learns, make_batch, make_case, make_info
from torch import Tensor


def reference(student: Tensor, teacher: Tensor, t: float) -> tuple[float, list[list[float]]]:
    """t^2 KL(p || q) in plain Python, and its gradient t (q - p) / B in the student's logits."""
    loss, gradient = 0.0, []
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(v / t) for v in theirs]
        q = [math.exp(v / t) for v in ours]
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        loss += t * t * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / len(student)
        gradient.append([t * (b - a) / len(student) for a, b in zip(p, q, strict=True)])
    return loss, gradient


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kd_is_its_definition_in_value_and_gradient(temperature: float) -> None:
    case = make_case("kd", temperature=temperature)
    outputs = case.outputs()
    loss = case.loss(outputs)
    value, gradient = reference(outputs.logits, case.teacher.outputs(case.batch).logits, temperature)
    assert loss.item() == pytest.approx(value, rel=1e-10)
    torch.testing.assert_close(torch.autograd.grad(loss, outputs.logits)[0].tolist(), gradient)


def test_kd_is_zero_where_the_logits_agree_up_to_a_constant() -> None:
    case = make_case("kd", temperature=3.0)
    equal = replace(case.outputs(), logits=case.teacher.outputs(case.batch).logits + 5)
    assert case.loss(equal).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("modalities", "primary", "pairing"), PAIRINGS)
def test_kd_serves_every_pairing(modalities: tuple[str, ...], primary: str, pairing: str) -> None:
    assert_only_the_student_learns(make_case("kd", modalities=modalities, primary=primary, pairing=pairing))


def test_what_a_teacher_remembers_is_what_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmkd.distillation.frozen_teacher.REMEMBERING_BATCH", 4)
    teacher = make_case("kd").teacher
    train = make_batch(make_info(), samples=11)
    places = torch.tensor([10, 3, 0, 7])
    batch = replace(train, x={m: x[places] for m, x in train.x.items()}, y=train.y[places], index=places)
    computed = teacher.outputs(batch)
    teacher.remember(train.x)
    remembered = teacher.outputs(batch)
    torch.testing.assert_close(remembered.logits, computed.logits)
    torch.testing.assert_close(remembered.penultimate, computed.penultimate)


def test_a_teacher_that_remembers_runs_over_train_once(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = make_case("kd").teacher
    train = make_batch(make_info(), samples=5)
    teacher.remember(train.x)
    runs: list[int] = []
    forward = teacher.network.forward
    monkeypatch.setattr(teacher.network, "forward", lambda x: runs.append(len(x["video"])) or forward(x))
    for _ in range(3):
        teacher.outputs(train)
    assert runs == [5]


def test_a_teacher_that_was_not_told_to_remember_sees_the_augmented_batch() -> None:
    teacher = make_case("kd").teacher
    batch = make_batch(make_info(), samples=3)
    augmented = replace(batch, x={m: x + 1 for m, x in batch.x.items()})
    assert not torch.allclose(teacher.outputs(batch).logits, teacher.outputs(augmented).logits)


@pytest.mark.parametrize(("method", "level"), [("kd", None), ("crd", "penultimate"), ("crd", "final")])
def test_a_remembering_teacher_gives_a_method_the_same_loss(method: str, level: str | None) -> None:
    losses = []
    for remembering in (False, True):
        case = make_case(method, level=level)
        if remembering:
            case.teacher.remember(case.batch.x)
        losses.append(case.loss(case.outputs()))
    torch.testing.assert_close(*losses)
