"""Dropout drops at its rate, keeps the mean, and does nothing where it should not."""

from __future__ import annotations

import pytest
import torch

from mmkd.models.dropout import Dropout

VALUES = 2**20 + 3


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_values_are_dropped_at_the_rate_and_the_others_are_divided_by_what_is_kept(p: float) -> None:
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(VALUES))
    deviation = (p * (1 - p) / VALUES) ** 0.5
    assert (dropped == 0).float().mean().item() == pytest.approx(p, abs=5 * deviation + 2**-16)
    torch.testing.assert_close(dropped[dropped != 0].unique(), torch.tensor([1 / (1 - p)]))


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(VALUES)) != 0).double()
    centred = kept - kept.mean()
    for distance in (1, 2, 3, 4, 8):
        assert abs((centred[:-distance] * centred[distance:]).mean()) < 0.25 * 5 / VALUES**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_and_dtype_stay_and_the_gradient_is_dropped_alike(dtype: torch.dtype) -> None:
    x = torch.ones(3, 5, 7, dtype=dtype, requires_grad=True)
    y = Dropout(0.4)(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, y)


def test_the_generator_decides_and_without_dropout_nothing_is_drawn() -> None:
    x, dropout = torch.ones(4, 6), Dropout(0.5)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = dropout(x)
    assert not torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x), first)
    torch.set_rng_state(state)
    assert torch.equal(dropout.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(torch.get_rng_state(), state)
