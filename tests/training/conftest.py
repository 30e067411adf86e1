"""Interrupting runs at chosen optimiser steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook


@dataclass
class Steps:
    """How many optimiser steps were made in this process, and where to ask a run to end."""

    made: int = 0
    end_after: set[int] = field(default_factory=set)
    _asked: bool = False

    def count(self, *_: object) -> None:
        self.made += 1
        self._asked = self.made in self.end_after

    def asked_to_end(self) -> bool:
        """For `run_trial`: whether the step just made is one to end after."""
        return self._asked


@pytest.fixture
def steps() -> Iterator[Steps]:
    """Counts every step of every optimiser while the test runs."""
    counter = Steps()
    hook = register_optimizer_step_post_hook(counter.count)
    yield counter
    hook.remove()
