"""Where a split lies changes no bit of a batch, nor of a trial."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from mmkd.data import read_info, tensors
from mmkd.data.hold_out import hold_out
from mmkd.data.tensors import Samples, chunks, epoch_batches, fits, load_samples

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Lab

CPU = torch.device("cpu")
GIB = 2**30


@pytest.mark.parametrize(
    ("needed", "free", "expected"),
    [(4 * GIB, 8 * GIB, True), (4 * GIB + 1, 8 * GIB, False), (1, 0, False), (0, 0, True), (900 * GIB, None, True)],
)
def test_a_split_lives_on_the_device_if_it_leaves_half_of_its_free_memory(
    needed: int, free: int | None, expected: bool
) -> None:
    assert fits(needed, free) == expected


@pytest.fixture
def both(small_data: tuple[Path, str]) -> tuple[Samples, Samples]:
    """The same split on the device, and in the host's memory."""
    modalities = ("video", "audio", "text")
    on_device, on_host = (
        load_samples(read_info(small_data[0]), "train", modalities, CPU, in_host_memory=host) for host in (False, True)
    )
    assert on_host.in_host_memory
    assert not on_device.in_host_memory
    return on_device, on_host


def assert_equal_batches(one: list[Any], other: list[Any]) -> None:
    assert len(one) == len(other) > 1
    for (part, x, y), (their_part, their_x, their_y) in zip(one, other, strict=True):
        assert torch.equal(part, their_part) if isinstance(part, Tensor) else part == their_part
        assert torch.equal(y, their_y)
        assert list(x) == list(their_x)
        assert all(torch.equal(value, their_x[m]) for m, value in x.items())


def test_batches_are_the_same_in_the_same_order(both: tuple[Samples, Samples]) -> None:
    on_device, on_host = both
    for parts in (epoch_batches(len(on_device), 7, seed=3, epoch=2), list(chunks(len(on_device), 10))):
        assert_equal_batches(list(on_device.draw(parts)), list(on_host.draw(parts)))
        assert_equal_batches([(p, *on_device.at(p)) for p in parts], [(p, *on_host.at(p)) for p in parts])
    assert list(on_host.draw([])) == []


def test_the_next_batch_is_on_its_way_before_this_one_is_given_out(
    both: tuple[Samples, Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    gather = tensors.gather
    monkeypatch.setattr(tensors, "gather", lambda x, part: begun.append(int(part[0])) or gather(x, part))
    samples = replace(both[1], x={"video": both[1].x["video"]})
    counts = [len(begun) for _ in samples.draw([torch.tensor([n]) for n in (5, 3, 8)])]
    assert counts == [2, 3, 3]
    assert begun == [5, 3, 8]


def test_what_is_held_out_lies_where_the_whole_lay(both: tuple[Samples, Samples]) -> None:
    for rest, held in (hold_out(samples, 0.25) for samples in both):
        assert held is not None
        assert rest.in_host_memory == held.in_host_memory
    (_, one), (_, other) = (hold_out(samples, 0.25) for samples in both)
    assert one is not None
    assert other is not None
    assert [s.in_host_memory for s in (one, other)] == [False, True]
    assert all(torch.equal(value, other.x[m]) for m, value in one.x.items())


@pytest.mark.parametrize("method", ["crd", "kd"])
def test_a_trial_whose_data_do_not_fit_ends_with_the_same_numbers(
    method: str, lab: Lab, numbers_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = lab.student(method, training={"augmentation": {"noise": 0.1}} if method == "crd" else {})
    expected = numbers_of(lab.run(config, number=0))
    gathered: list[int] = []
    gather = tensors.gather
    monkeypatch.setattr(tensors, "gather", lambda x, part: gathered.append(1) or gather(x, part))
    monkeypatch.setattr(tensors, "fits", lambda needed, free: False)
    assert numbers_of(lab.run(config, number=1)) == expected
    assert gathered
