"""What augmentation changes, and what it keeps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmkd.config import Augmentation
from mmkd.training.augmentation import _rotations, augment

KINDS = ["crop", "warp", "rotation", "scale", "shift", "noise"]
VECTORS = {"skeleton": 3, "imu": 2}
BATCH = 64


def make_inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"skeleton": (9, 6), "imu": (5, 4), "audio": (1, 3)}
    return {m: torch.randn(BATCH, *shape, generator=generator) for m, shape in shapes.items()}


def ramps() -> dict[str, Tensor]:
    """Every modality holds the time of each of its steps, from 0 to 1; the grid of `short` is part of `long`'s."""
    grids = {"long": torch.linspace(0, 1, 9), "short": torch.linspace(0, 1, 5)}
    return {m: grid[None, :, None].expand(BATCH, -1, 2).clone() for m, grid in grids.items()}


def change(x: dict[str, Tensor], seed: int = 0, **strengths: float) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return augment(x, Augmentation(**strengths), VECTORS)


def test_without_settings_nothing_is_changed_or_drawn() -> None:
    x = make_inputs()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    changed = augment(x, Augmentation(), VECTORS)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(changed[m], x[m]) for m in x)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_gives_the_same_change_and_another_another(kind: str) -> None:
    x = make_inputs()
    first, again, other = (change(x, seed, **{kind: 0.3}) for seed in (0, 0, 1))
    assert all(torch.equal(first[m], again[m]) for m in x)
    assert not torch.equal(first["skeleton"], other["skeleton"])


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_stay_and_the_samples_given_are_not_touched(kind: str) -> None:
    x = make_inputs()
    copies = {m: v.clone() for m, v in x.items()}
    changed = change(x, **{kind: 0.3})
    assert {m: (v.shape, v.dtype) for m, v in changed.items()} == {m: (v.shape, v.dtype) for m, v in x.items()}
    assert all(torch.equal(x[m], copies[m]) for m in x)
    assert all(v.isfinite().all() for v in changed.values())


@pytest.mark.parametrize("kind", ["crop", "warp"])
def test_time_changes_alike_in_all_modalities_of_a_sample(kind: str) -> None:
    changed = change(ramps(), **{kind: 0.3})
    torch.testing.assert_close(changed["long"][:, ::2], changed["short"])
    assert changed["long"].std(0).max() > 0.02  # unlike between samples


def test_a_crop_moves_both_ends_by_at_most_its_share_and_keeps_the_order_of_time() -> None:
    time = change(ramps(), crop=0.2)["long"][..., 0]
    assert (time.diff(dim=1) >= 0).all()
    assert 0.1 < time[:, 0].max() <= 0.2
    assert 0.8 <= time[:, -1].min() < 0.9
    assert ((time >= 0) & (time <= 1)).all()


def test_a_warp_keeps_both_ends_and_the_order_of_time() -> None:
    time = change(ramps(), warp=0.9)["long"][..., 0]
    torch.testing.assert_close(time[:, [0, -1]], torch.tensor([[0.0, 1.0]]).expand(BATCH, 2))
    assert (time.diff(dim=1) > 0).all()
    assert (time[:, 4] - 0.5).abs().max() > 0.2


def test_a_modality_of_one_step_has_no_time_to_change() -> None:
    x = make_inputs()
    torch.testing.assert_close(change(x, crop=0.4, warp=0.5)["audio"], x["audio"])


def triples(x: Tensor) -> Tensor:
    return x.reshape(BATCH, -1, 3)


def test_a_rotation_keeps_norms_angles_and_handedness() -> None:
    x = make_inputs()
    before, after = triples(x["skeleton"]), triples(change(x, rotation=1.0)["skeleton"])
    assert (before - after).norm(dim=-1).mean() > 0.3
    torch.testing.assert_close(after.norm(dim=-1), before.norm(dim=-1))
    torch.testing.assert_close(after @ after.transpose(1, 2), before @ before.transpose(1, 2), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.linalg.det(after[:, :3]), torch.linalg.det(before[:, :3]), atol=1e-4, rtol=1e-4)


def test_rotations_are_in_radians_about_all_axes() -> None:
    x = {"skeleton": torch.eye(3).reshape(1, 1, 9).repeat(4000, 1, 1)}
    turned = change(x, rotation=0.1)["skeleton"].reshape(-1, 3, 3)
    angles = ((turned.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos()
    assert angles.square().mean().sqrt().item() == pytest.approx(0.1 * math.sqrt(3), rel=0.05)
    axes = torch.stack([turned[:, 1, 2], turned[:, 2, 0], turned[:, 0, 1]], 1)
    assert axes.mean(0).abs().max() < 0.01
    assert all(s == pytest.approx(0.1, rel=0.1) for s in axes.std(0).tolist())


def test_rotations_are_exponentials_of_their_vectors_down_to_none() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 3, generator=generator, dtype=torch.float64) * torch.logspace(-9, 0.6, 40)[:, None]
    vectors[0] = 0
    skew = torch.zeros(40, 3, 3, dtype=torch.float64)
    skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -vectors[:, 2], vectors[:, 1], -vectors[:, 0]
    torch.testing.assert_close(_rotations(vectors), torch.linalg.matrix_exp(skew - skew.mT), atol=1e-12, rtol=0)


def test_only_vectors_in_space_are_rotated() -> None:
    x = make_inputs()
    changed = change(x, rotation=1.0)
    assert torch.equal(changed["imu"], x["imu"])
    assert torch.equal(changed["audio"], x["audio"])


def test_a_scale_is_one_factor_for_a_modality_of_a_sample() -> None:
    x = {m: torch.ones_like(v) for m, v in make_inputs().items()}
    changed = change(x, scale=0.3)
    for v in changed.values():
        assert (v.flatten(1) == v[:, 0, 0, None]).all()
    factors = torch.cat([v[:, 0, 0] for v in changed.values()])
    assert len(factors.unique()) == len(factors)
    assert factors.std().item() == pytest.approx(0.3, rel=0.2)


def test_a_shift_is_constant_over_time() -> None:
    x = make_inputs()
    difference = change(x, shift=0.3)["skeleton"] - x["skeleton"]
    torch.testing.assert_close(difference, difference[:, :1].expand_as(difference), atol=1e-6, rtol=0)
    assert difference[:, 0].std().item() == pytest.approx(0.3, rel=0.15)


def test_noise_has_its_deviation_on_every_value() -> None:
    x = make_inputs()
    difference = change(x, noise=0.3)["skeleton"] - x["skeleton"]
    assert difference.std().item() == pytest.approx(0.3, rel=0.1)
    assert difference.std(0).min() > 0.15
    assert difference.mean().abs() < 0.03


@pytest.mark.parametrize("strengths", [{"shift": 0.5}, {"noise": 0.5}, {"noise": 0.5, "warp": 0.3, "crop": 0.1}])
def test_lengths_say_which_zeros_are_data(strengths: dict[str, float]) -> None:
    x = {"imu": torch.zeros(BATCH, 8, 2)}
    lengths = {"imu": torch.full((BATCH,), 5)}
    torch.manual_seed(0)
    changed = augment(x, Augmentation(**strengths), {}, None, lengths)["imu"]
    assert not changed[:, :2].any(), "padding stays 0"
    assert changed[:, 4:].any(2).all(), "real steps of zeros change"


def test_without_lengths_leading_zeros_are_padding_and_inner_ones_data() -> None:
    x = {"imu": torch.ones(BATCH, 8, 2)}
    x["imu"][:, :3] = x["imu"][:, 5] = 0
    changed = change(x, noise=0.5)["imu"]
    assert not changed[:, :3].any()
    assert changed[:, 3:].any(2).all()
