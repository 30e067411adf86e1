"""Maps of the tests are small: they are cut into tiles that are smaller."""

from __future__ import annotations

import pytest

from mmkd.distillation import _tiles


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows of one sample, or a single row of several."""
    for budgets in (_tiles.TILE_BYTES, _tiles.WHOLE_BATCH_BYTES):
        monkeypatch.setitem(budgets, "cpu", 600)
