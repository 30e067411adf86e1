"""Losses in tiles against the same losses on whole maps, in value and gradient, and what is never held."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmkd.distillation import _tiles
from mmkd.distillation._maps import safe_log
from mmkd.distillation._tiles import tiled_sum, tiles
from mmkd.models.attention import attention_map, mult_mask
from mmkd.models.scores import Scores

BUDGETS = [1, 600, 2000, 5000, 2**20]


def make_scores(batch: int = 3, rows: int = 7, keys: int = 5, *, wanted: bool, masked: bool = False) -> Scores:
    query, key = (torch.randn(batch, steps, 2, 4, dtype=torch.float64).transpose(1, 2) for steps in (rows, keys))
    mask = mult_mask(rows, keys, query.device) if masked else None
    return Scores(query.requires_grad_(wanted), key.requires_grad_(wanted), mask)


def set_budget(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    for budgets in (_tiles.TILE_BYTES, _tiles.WHOLE_BATCH_BYTES):
        monkeypatch.setitem(budgets, "cpu", budget)


def cell_loss(a: Tensor, theirs: Scores, rows: slice) -> Tensor:
    return -(a * safe_log(attention_map(theirs.rows(rows)))).sum()


@pytest.mark.parametrize("whole_batch", [False, True])
@pytest.mark.parametrize("budget", BUDGETS)
def test_tiles_cover_each_row_of_each_sample_once(
    budget: int, whole_batch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_budget(monkeypatch, budget)
    seen = torch.zeros(3, 7)
    found = list(tiles(make_scores(wanted=False), whole_batch))
    for samples, rows in found:
        seen[samples, rows] += 1
        assert not whole_batch or samples == slice(0, 3)
    assert (seen == 1).all()
    assert (len(found) == 1) == (budget >= 3 * 2 * 7 * 5 * 8)


def test_a_tile_has_whole_samples_where_one_fits_and_rows_of_one_where_none_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = 2 * 5 * 8  # heads, keys, bytes
    shapes = {}
    for budget in (2 * 7 * row, 3 * row, row - 1):
        set_budget(monkeypatch, budget)
        samples, rows = next(tiles(make_scores(wanted=False), False))
        shapes[budget] = samples.stop, rows.stop
    assert list(shapes.values()) == [(2, 7), (1, 3), (1, 1)]


@pytest.mark.parametrize("whole_batch", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("budget", BUDGETS)
def test_tiles_equal_the_whole_in_value_and_gradient(
    budget: int, masked: bool, whole_batch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    set_budget(monkeypatch, budget)
    ours, theirs = make_scores(wanted=True, masked=masked), make_scores(wanted=False, masked=masked)
    scale = nn.Parameter(torch.randn(5, dtype=torch.float64))

    def loss(a: Tensor, theirs: Scores, rows: slice) -> Tensor:
        return cell_loss(a, theirs, rows) + (scale * a).square().sum()

    learned = [ours.query, ours.key, scale]
    fast = 3.7 * tiled_sum(loss, ours, theirs, [scale], temperature=0.6, whole_batch=whole_batch)
    slow = 3.7 * loss((ours.dense() / 0.6).softmax(-1).mean(1), theirs, slice(None))
    torch.testing.assert_close(fast, slow, atol=0, rtol=1e-12)
    for one, other in zip(torch.autograd.grad(fast, learned), torch.autograd.grad(slow, learned), strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-9)


def test_the_gradient_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    set_budget(monkeypatch, 300)
    ours, theirs = make_scores(2, 3, 4, wanted=True), make_scores(2, 3, 4, wanted=False)
    assert torch.autograd.gradcheck(
        lambda query, key: tiled_sum(cell_loss, Scores(query, key), theirs), (ours.query, ours.key)
    )


def test_a_loss_is_evaluated_once_a_tile_and_without_gradients_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_budget(monkeypatch, 600)
    ours, theirs = make_scores(wanted=True), make_scores(wanted=False)
    recorded: list[bool] = []

    def loss(a: Tensor, theirs: Scores, rows: slice) -> Tensor:
        value = cell_loss(a, theirs, rows)
        recorded.append(value.requires_grad)
        return value

    tiled_sum(loss, ours, theirs).backward()
    assert recorded == [True] * len(list(tiles(ours, False)))
    recorded.clear()
    with torch.no_grad():
        assert not tiled_sum(loss, ours, theirs).requires_grad
    assert recorded == [False] * len(list(tiles(ours, False)))


@pytest.mark.parametrize("masked", [False, True])
def test_a_map_is_the_same_with_memory_to_make_it_in_with_too_little_of_it_and_with_none(masked: bool) -> None:
    torch.manual_seed(0)
    scores = make_scores(wanted=False, masked=masked)
    cells = 3 * 2 * 7 * 5
    space = torch.full((cells + 3,), torch.nan, dtype=torch.float64)
    expected = scores.dense(0.7).softmax(-1).mean(1)
    for given in (space, space[: cells - 1], None):
        torch.testing.assert_close(attention_map(replace(scores, space=given), 0.7), expected, atol=0, rtol=1e-12)
    assert space[:cells].isfinite().all()
    assert space[cells:].isnan().all()


class Largest(TorchDispatchMode):
    """The most elements of any tensor of floats that an operator makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        floats = [t for t in tree_leaves(made) if isinstance(t, Tensor) and t.is_floating_point()]
        sizes = [t.untyped_storage().nbytes() // t.element_size() for t in floats]
        self.elements = max([self.elements, *sizes])
        return made


@pytest.mark.parametrize("whole_batch", [False, True])
def test_nothing_that_is_held_grows_with_the_square_of_the_length(
    whole_batch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_budget(monkeypatch, 40_000)
    largest = []
    for steps in (40, 80, 160):
        ours, theirs = make_scores(3, steps, steps, wanted=True), make_scores(3, steps, steps, wanted=False)
        with Largest() as mode:
            tiled_sum(cell_loss, ours, theirs, whole_batch=whole_batch).backward()
        largest.append(mode.elements)
    assert max(largest) <= 2 * 40_000 // 8
    with Largest() as mode:
        cell_loss(attention_map(ours), theirs, slice(None)).backward()
    assert mode.elements >= 3 * 2 * 160 * 160
