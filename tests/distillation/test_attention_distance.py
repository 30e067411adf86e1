"""The other distances between maps against a slow float64 computation with loops (`map_reference`)."""

from __future__ import annotations

import math

import map_reference as slow
import pytest
import torch
from distillation_cases import (
    PAIRINGS,
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
from mmkd.distillation.attention_distance import DISTANCES
from mmkd.distillation.edam import Method as EDAM
from mmkd.errors import UserError
from mmkd.models.attention import attention_map

REFERENCES: dict[str, slow.RowLoss] = {
    "js": slow.jensen_shannon,
    "mse": slow.scaled_squared_error,
    "cosine": slow.cosine_distance,
}


@pytest.mark.parametrize("distance", REFERENCES)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("mask", ["none", "mult"])
def test_a_distance_is_its_definition_in_value_and_gradient(distance: str, temperature: float, mask: str) -> None:
    case = make_case(
        "attention_distance", pairing="complete", mask=mask, temperature=temperature, samples=1, distance=distance
    )
    outputs = cut(case.outputs())
    pairs = score_pairs(case, outputs)
    copies = leaves(pairs)
    loss = case.loss(outputs)
    expected = slow.map_loss(dense(copies), REFERENCES[distance], temperature)
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, students(pairs))
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, students(copies)))


@pytest.mark.parametrize("distance", REFERENCES)
@pytest.mark.parametrize(("modalities", "primary", "pairing"), PAIRINGS)
def test_a_distance_serves_every_pairing(
    modalities: tuple[str, ...], primary: str, pairing: str, distance: str
) -> None:
    case = make_case("attention_distance", modalities=modalities, primary=primary, pairing=pairing, distance=distance)
    assert_only_the_student_learns(case)


@pytest.mark.parametrize("distance", REFERENCES)
def test_maps_that_underflow_to_zero_give_a_finite_loss_and_gradient(distance: str) -> None:
    case = make_case("attention_distance", sharpness=16.0, temperature=0.05, distance=distance)
    assert_only_the_student_learns(case)


@pytest.mark.parametrize("distance", REFERENCES)
def test_a_distance_is_zero_at_equality_symmetric_and_largest_for_disjoint_rows(distance: str) -> None:
    function = DISTANCES[distance]  # type: ignore[index]
    a, b = torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([0.1, 0.6, 0.3]).double()
    here, there = torch.tensor([1.0, 0.0, 0.0]).double(), torch.tensor([0.0, 0.0, 1.0]).double()
    assert function(a, a).item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(function(a, b), function(b, a))
    assert function(here, there).item() == pytest.approx({"js": math.log(2), "mse": 6, "cosine": 1}[distance])


@pytest.mark.parametrize("columns", [10, 500])
def test_gradients_in_the_scores_have_the_documented_scale_whatever_the_number_of_keys(columns: int) -> None:
    torch.manual_seed(0)
    ours = (0.01 * torch.randn(1, 1, 4, columns)).double().requires_grad_()
    theirs = (0.01 * torch.randn(1, 1, 4, columns)).double()
    a, b = attention_map(ours), attention_map(theirs)
    difference = (a - b).detach()[:, None]

    def scale(loss: Tensor) -> float:
        (gradient,) = torch.autograd.grad(loss.sum(), ours, retain_graph=True)
        return float((gradient * difference).sum() / difference.square().sum())

    edam = make_case("edam", edam_direction="teacher_student").method
    assert isinstance(edam, EDAM)
    assert scale(edam.row_loss(a, b)) == pytest.approx(1, rel=0.02)
    for distance, expected in {"js": 0.25, "mse": 2.0, "cosine": 1.0}.items():
        assert scale(DISTANCES[distance](a, b)) == pytest.approx(expected, rel=0.02)


def test_the_settings_are_checked_and_written_out() -> None:
    assert complete(Distillation(method="attention_distance")).settings == {"distance": "js"}
    with pytest.raises(UserError, match="distance"):
        complete(Distillation(method="attention_distance", settings={"distance": "l1"}))
