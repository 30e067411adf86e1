"""EDAM against a slow float64 computation with loops (`map_reference`), in value and gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import map_reference as slow
import pytest
import torch
from distillation_cases import (
    PAIRINGS,
    Case,
    assert_only_the_student_learns,
    cut,
    dense,
    leaves,
    make_case,
    score_pairs,
    students,
)
from torch import Tensor

from mmkd.config import Distillation
from mmkd.distillation import complete
from mmkd.distillation.edam import Method, Upsampling, interpolation
from mmkd.errors import UserError
from mmkd.models.attention import attention_map
from mmkd.models.scores import Scores

DIRECTIONS = ["student_teacher", "teacher_student"]


def in_direction(direction: str) -> slow.RowLoss:
    if direction == "student_teacher":
        return slow.cross_entropy
    return lambda student, teacher: slow.cross_entropy(teacher, student)


def upsamplings(case: Case) -> list[Upsampling]:
    assert isinstance(case.method, Method)
    return [u for u in case.method.upsamplings.values() if isinstance(u, Upsampling)]


def maps_of(case: Case, name: str, ours: Scores, theirs: Scores) -> tuple[Tensor, Tensor]:
    """The student's and the teacher's map (B, Tq, Tk) as they are compared."""
    assert isinstance(case.method, Method)
    mask = case.method.visible(ours, theirs)
    a = attention_map(replace(ours, mask=mask), case.method.problem.config.temperature)
    return a, case.method.target(name, mask, theirs, slice(None))


def stir(case: Case) -> None:
    """Up-sampling that is no longer interpolation, as after some steps."""
    for parameter in case.method.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("pairing", ["others", "complete"])
def test_down_is_the_definition_in_value_and_gradient(direction: str, temperature: float, pairing: str) -> None:
    samples = 1 if pairing == "complete" else 2
    case = make_case("edam", pairing=pairing, temperature=temperature, samples=samples, edam_direction=direction)
    outputs = cut(case.outputs())
    pairs = score_pairs(case, outputs)
    copies = leaves(pairs)
    loss = case.loss(outputs)
    expected = slow.map_loss(dense(copies), in_direction(direction), temperature)
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, students(pairs))
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, students(copies)))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_up_is_the_definition_in_value_and_gradient(direction: str, temperature: float) -> None:
    case = make_case(
        "edam", pairing="language", temperature=temperature, samples=1, size="up", edam_direction=direction
    )
    stir(case)
    outputs = cut(case.outputs())
    pairs = score_pairs(case, outputs)
    loss = case.loss(outputs)
    weights = [w for u in upsamplings(case) for w in (u.rows, u.columns) if w is not None]
    # Of V<-L the columns need none, for V is the primary.
    assert [tuple(w.shape) for w in weights] == [(9, 4), (9, 4), (9, 7)]
    copies, matrices = leaves(pairs), [w.detach().clone().requires_grad_() for w in weights]
    by_pair = [(matrices[0], torch.eye(9, dtype=torch.float64)), (matrices[1], matrices[2])]
    stretched = [
        [(ours, slow.stretch(theirs, *by_pair[place])) for ours, theirs in layers]
        for place, layers in enumerate(dense(copies))
    ]
    expected = slow.map_loss(stretched, in_direction(direction), temperature)
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, [*students(pairs), *weights])
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, [*students(copies), *matrices]))


@pytest.mark.parametrize(("old", "new"), [(4, 9), (7, 9), (1, 5), (9, 4), (5, 5)])
def test_upsampling_begins_as_linear_interpolation(old: int, new: int) -> None:
    torch.testing.assert_close(interpolation(old, new).double(), slow.interpolation(old, new), rtol=0, atol=1e-6)


def test_axes_that_agree_have_no_layer() -> None:
    assert list(Upsampling((4, 9), (9, 9)).state_dict()) == ["rows"]
    assert list(Upsampling((9, 4), (9, 9)).state_dict()) == ["columns"]
    assert list(Upsampling((9, 9), (9, 9)).state_dict()) == []


def test_only_up_gives_the_proxies_the_primarys_length() -> None:
    for size, lengths in (("down", {9, 7, 4}), ("up", {9})):
        student = make_case("edam", pairing="complete", size=size).student
        assert {length for name in student.stacks for length in student.map_shape(name)} == lengths


@pytest.mark.parametrize("pairing", ["others", "complete", "language"])
def test_the_maps_compared_have_the_students_size_and_rows_that_sum_to_one(pairing: str) -> None:
    case = make_case("edam", pairing=pairing, size="up", temperature=0.7)
    stir(case)
    assert isinstance(case.method, Method)
    for name, layers in zip(case.method.names, score_pairs(case, case.outputs()), strict=True):
        for ours, theirs in layers:
            a, b = maps_of(case, name, ours, theirs)
            assert a.shape == b.shape == (3, *case.student.map_shape(name))
            torch.testing.assert_close(a.sum(-1), torch.ones_like(a[..., 0]))
            torch.testing.assert_close(b.sum(-1), torch.ones_like(b[..., 0]))


def test_upsampling_is_trained_with_the_student_unless_it_is_frozen() -> None:
    for frozen in (False, True):
        case = make_case("edam", size="up", freeze_upsampling=frozen)
        case.loss(case.outputs()).backward()
        parameters = list(case.method.parameters())
        assert parameters
        assert all((p.grad is None) == frozen and p.requires_grad != frozen for p in parameters)


def test_the_entropy_of_upsampled_targets_is_recorded() -> None:
    case = make_case("edam", pairing="language", size="up", samples=1)
    loss = case.loss(case.outputs())
    pairs = score_pairs(case, case.outputs())
    assert loss.isfinite()
    entropies = []
    for layers, (rows, columns) in zip(dense(pairs), [(4, 9), (4, 7)], strict=True):
        for _, theirs in layers:
            stretched = slow.stretch(theirs, slow.interpolation(rows, 9), slow.interpolation(columns, 9))
            found = [slow.map_row(stretched, 0, row, 1.0) for row in range(9)]
            entropies += [slow.cross_entropy(row, row) for row in found]
    recorded = case.method.monitored["target_entropy"]
    assert recorded.item() == pytest.approx(float(slow.total(entropies)) / len(entropies), rel=1e-6)
    assert 0 < recorded < math.log(9)


def test_down_records_nothing() -> None:
    case = make_case("edam")
    case.loss(case.outputs())
    assert case.method.monitored == {}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_hidden_keys_are_left_out(direction: str) -> None:
    # A<-A of the second stage is strictly causal, the others hide some keys of some queries.
    case = make_case("edam", pairing="complete", mask="mult", samples=1, edam_direction=direction)
    outputs = cut(case.outputs())
    pairs = score_pairs(case, outputs)
    assert any(ours.isneginf().any() for layers in dense(pairs) for ours, _ in layers)
    copies = leaves(pairs)
    loss = case.loss(outputs)
    expected = slow.map_loss(dense(copies), in_direction(direction), 1.0)
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, students(pairs))
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, students(copies)))
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_with_up_the_target_is_hidden_where_the_student_is(direction: str) -> None:
    case = make_case("edam", pairing="audio", mask="mult", size="up", edam_direction=direction)
    assert isinstance(case.method, Method)
    for name, layers in zip(case.method.names, score_pairs(case, case.outputs()), strict=True):
        for ours, theirs in layers:
            a, b = maps_of(case, name, ours, theirs)
            causal = torch.ones(9, 9).tril().bool().expand_as(a)
            assert (a[~causal] == 0).all()
            assert (b[~causal] == 0).all()
            assert (b[causal] > 0).all()
    assert_only_the_student_learns(case)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("size", ["down", "up"])
def test_maps_that_underflow_to_zero_give_a_finite_loss_and_gradient(direction: str, size: str) -> None:
    case = make_case("edam", sharpness=16.0, temperature=0.05, size=size, edam_direction=direction)
    assert any((slow_map == 0).any() for slow_map in first_maps(case))
    assert_only_the_student_learns(case)


def first_maps(case: Case) -> tuple[Tensor, Tensor]:
    assert isinstance(case.method, Method)
    ours, theirs = score_pairs(case, case.outputs())[0][0]
    return maps_of(case, case.method.names[0], ours, theirs)


def test_the_usual_direction_is_least_at_equal_rows_and_the_printed_one_at_the_teachers_argmax() -> None:
    for direction in DIRECTIONS:
        case = make_case("edam", edam_direction=direction)
        assert isinstance(case.method, Method)
        teacher = torch.tensor([[[0.2, 0.5, 0.3]]])
        equal = case.method.row_loss(teacher, teacher)
        argmax = case.method.row_loss(torch.tensor([[[0.0, 1.0, 0.0]]]), teacher)
        assert (argmax < equal).item() == (direction == "student_teacher")


def test_the_networks_own_forward_pass_keeps_temperature_one() -> None:
    logits = []
    for temperature in (0.3, 4.0):
        case = make_case("edam", temperature=temperature)
        case.student.eval()
        logits.append(case.outputs().logits)
    torch.testing.assert_close(*logits)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("size", ["down", "up"])
@pytest.mark.parametrize(("modalities", "primary", "pairing"), PAIRINGS)
def test_edam_serves_every_pairing(
    modalities: tuple[str, ...], primary: str, pairing: str, size: str, direction: str
) -> None:
    case = make_case(
        "edam", modalities=modalities, primary=primary, pairing=pairing, size=size, edam_direction=direction
    )
    assert_only_the_student_learns(case)


def test_the_settings_are_checked_and_written_out() -> None:
    settled = complete(Distillation(method="edam"))
    assert settled.level == "attention_maps"
    assert settled.settings == {"edam_direction": "student_teacher", "size": "down", "freeze_upsampling": False}
    with pytest.raises(UserError, match="freeze_upsampling needs size = 'up'"):
        complete(Distillation(method="edam", settings={"freeze_upsampling": True}))
    with pytest.raises(UserError, match="edam_direction"):
        complete(Distillation(method="edam", settings={"edam_direction": "both"}))
