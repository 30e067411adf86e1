"""The kernels for attention maps against whole maps in float64, on a GPU or, with TRITON_INTERPRET=1, on the CPU.

Not collected by itself: Triton must know which it is before it is imported, so test_kernels.py gives these tests a
process of their own.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_tiles import Largest
from torch import Tensor, nn

from mmkd.distillation import _tiles
from mmkd.distillation._maps import safe_log
from mmkd.distillation._tiles import tiled_sum, tiles
from mmkd.models import fused_maps
from mmkd.models.attention import attention_map, mult_mask
from mmkd.models.scores import Scores

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")

Shape = tuple[int, int, int, int]
"""(Tq, Tk, heads, width)"""

# Less than a block (of 64 rows and 32 keys), a whole one, more than one; the last two have rows that see nothing of the
# first block of keys.
CASES: list[tuple[Shape, str, float]] = [
    ((7, 13, 3, 5), "none", 1.0),
    ((7, 13, 3, 5), "mult", 0.3),
    ((13, 7, 1, 5), "mult", 4.0),
    ((1, 1, 1, 1), "none", 1.0),
    ((64, 32, 1, 16), "none", 0.3),
    ((70, 37, 2, 6), "any", 1.0),
    ((5, 100, 1, 17), "any", 4.0),
]


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    if INTERPRETED:
        monkeypatch.setattr(fused_maps, "use_kernels", lambda query: query.dtype == torch.float32)


def make_scores(rows: int, keys: int, heads: int, width: int, *, mask: str = "none", batch: int = 2) -> Scores:
    """Laid out as a network makes them."""
    query, key = (torch.randn(batch, steps, heads, width, device=DEVICE).transpose(1, 2) for steps in (rows, keys))
    visible = torch.rand(rows, keys, device=DEVICE) < 0.5
    visible[:, -1] = True  # so that no row is empty; the first of many blocks often is
    visible[:, : keys - keys % 32 - 1] &= torch.rand(rows, 1, device=DEVICE) < 0.5
    masks = {"none": None, "mult": mult_mask(rows, keys, DEVICE), "any": visible}
    return Scores(query, key, masks[mask])


def doubled(scores: Scores) -> Scores:
    """In float64, which no kernel takes, with a gradient to come."""
    query, key = (factor.detach().double().requires_grad_() for factor in (scores.query, scores.key))
    return replace(scores, query=query, key=key)


def close(found: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    """To a few float32 roundings of the largest element."""
    assert found.shape == expected.shape
    found, expected = found.detach(), expected.detach()
    assert float((found - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(("shape", "mask", "temperature"), CASES)
def test_a_map_and_its_gradients_are_those_of_the_dense_map_in_float64(
    shape: Shape, mask: str, temperature: float
) -> None:
    torch.manual_seed(0)
    scores = make_scores(*shape, mask=mask)
    wanted = doubled(scores)
    dense = wanted.dense(temperature)
    expected = dense.softmax(-1).mean(1)
    outer = torch.randn_like(expected.mT).mT  # not contiguous, as what a sum hands back
    mean, normaliser = fused_maps.mean_map(scores, temperature)
    close(mean, expected)
    close(normaliser, dense.logsumexp(-1))
    by_query = torch.full_like(scores.query, torch.nan)
    by_key = torch.ones(scores.key.shape, device=DEVICE)
    fused_maps.gradients(scores, temperature, normaliser, outer.float(), by_query, by_key)
    slopes = torch.autograd.grad(expected, [wanted.query, wanted.key], outer)
    close(by_query, slopes[0], 1e-5)
    close(by_key, slopes[1] + 1, 1e-5)


def test_large_scores_do_not_overflow() -> None:
    torch.manual_seed(0)
    scores = make_scores(7, 40, 2, 5)
    scores = replace(scores, query=200 * scores.query)
    assert float(scores.dense().max()) > 200  # exp of which is beyond float32
    close(attention_map(scores), attention_map(doubled(scores)), 1e-4)


def test_a_row_that_sees_no_key_is_nan_as_without_kernels_and_the_other_rows_are_not() -> None:
    scores = make_scores(5, 40, 2, 3, mask="any")
    assert scores.mask is not None
    scores.mask[2] = False
    expected = attention_map(doubled(scores))
    assert expected[:, 2].isnan().all()
    assert torch.equal(attention_map(scores).isnan(), expected.isnan())


def test_scores_that_are_not_finite_do_not_become_a_map() -> None:
    scores = make_scores(5, 40, 2, 3)
    scores.query[0, 1, 3] = torch.nan
    found = attention_map(scores)
    assert found[0, 3].isnan().all()
    assert found[1].isfinite().all()


def cell_loss(scale: Tensor, a: Tensor, theirs: Scores, rows: slice) -> Tensor:
    """EDAM's, and something learned."""
    return -(a * safe_log(attention_map(theirs.rows(rows), 0.6))).sum() + (scale * a).square().sum()


def evaluate(ours: Scores, theirs: Scores, whole_batch: bool) -> list[Tensor]:
    """A loss in tiles, and its gradients."""
    learned = nn.Parameter(torch.linspace(-1, 1, ours.key.shape[2], dtype=ours.key.dtype, device=DEVICE))
    loss = lambda a, theirs, rows: cell_loss(learned, a, theirs, rows)  # noqa: E731
    total = tiled_sum(loss, ours, theirs, [learned], temperature=0.6, whole_batch=whole_batch)
    return [total.detach(), *torch.autograd.grad(3.7 * total, [ours.query, ours.key, learned])]


@pytest.mark.parametrize("whole_batch", [False, True])
def test_losses_in_tiles_are_those_without_kernels(whole_batch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(_tiles, "FUSED_TILE_BYTES", 10 * 4 * 13)
    ours, theirs = (make_scores(7, 13, 3, width, mask="mult") for width in (5, 4))
    ours.query.requires_grad_()
    ours.key.requires_grad_()
    slow = evaluate(doubled(ours), replace(theirs, query=theirs.query.double(), key=theirs.key.double()), whole_batch)
    for one, other in zip(evaluate(ours, theirs, whole_batch), slow, strict=True):
        close(one, other, 1e-5)
    monkeypatch.setattr(fused_maps, "use_kernels", lambda query: False)
    eager = evaluate(ours, theirs, whole_batch)
    for one, other in zip(eager, slow, strict=True):
        close(one, other, 1e-5)


def test_a_tile_is_counted_by_its_map_not_by_its_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tiles, "FUSED_TILE_BYTES", 4 * 7 * 13)
    assert len(list(tiles(make_scores(7, 13, 3, 5), False))) == 2


def test_no_tensor_has_a_map_for_each_head(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    ours, theirs = make_scores(20, 30, 3, 5), make_scores(20, 30, 3, 5)
    ours.query.requires_grad_()
    ours.key.requires_grad_()
    with Largest() as mode:
        evaluate(ours, theirs, False)
    assert mode.elements == 2 * 20 * 30
    monkeypatch.setattr(fused_maps, "use_kernels", lambda query: False)
    monkeypatch.setitem(_tiles.TILE_BYTES, DEVICE.type, 2**20)
    with Largest() as mode:
        evaluate(ours, theirs, False)
    assert mode.elements >= 3 * 2 * 20 * 30


@pytest.mark.skipif(INTERPRETED, reason="there one program runs after the other")
def test_the_same_inputs_give_the_same_bits() -> None:
    torch.manual_seed(0)
    ours, theirs = make_scores(500, 500, 8, 8), make_scores(500, 500, 8, 8)
    ours.query.requires_grad_()
    ours.key.requires_grad_()
    for one, other in zip(evaluate(ours, theirs, True), evaluate(ours, theirs, True), strict=True):
        assert torch.equal(one, other)


def test_the_check_before_the_first_use_is_content_with_these_kernels_and_not_with_wrong_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fused_maps._agree.cache_clear()
    state = torch.random.get_rng_state()
    assert fused_maps._agree(DEVICE, 5)
    assert torch.equal(torch.random.get_rng_state(), state)
    right = fused_maps.gradients

    def wrong(scores: Scores, *arguments: Any) -> None:
        right(scores, *arguments)
        arguments[-1].mul_(1.1)

    monkeypatch.setattr(fused_maps, "gradients", wrong)
    fused_maps._agree.cache_clear()
    assert not fused_maps._agree(DEVICE, 5)
    assert "differ from torch's operators by 0.1" in capsys.readouterr().err
    fused_maps._agree.cache_clear()
