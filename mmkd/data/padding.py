"""Padding: steps that are no data. Stored sequences have it in front, and lengths say how many steps are real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from mmkd.data.dataset import Array, chunks, edge_zeros, is_padding
from mmkd.errors import UserError, choose

Side = Literal["front", "behind"]
Padding = Literal["front", "behind", "none"]
SIDES: tuple[Side, ...] = get_args(Side)
CHOICES: tuple[Padding, ...] = get_args(Padding)

FEW, FEW_SHARE, RARER = 3, 0.01, 10
"""All-zero steps on the unusual side are data where few samples have them, or ten times as many on the usual one."""

HOW = "--padding front, behind or none (in Python padding=...) decides"


def pad_in_front(
    modality: str,
    arrays: Mapping[str, Array],
    lengths: Mapping[str, Array],
    *,
    padding: Padding | None = None,
    usual: Side = "front",
    owned: bool = False,
) -> dict[str, tuple[Array, Array]]:
    """Move the padding of one modality to the front, and settle its lengths.

    Without `padding`, lengths decide the side: the one where nothing but zeros stands outside them. Without lengths,
    all-zero steps do: padding is on the `usual` side, unless many samples have such steps on the other one.

    Args:
        modality: its name, for messages.
        arrays: split -> (N, T, F).
        lengths: split -> (N,) real steps, of the splits where they are known.
        padding: the side of the padding, as the user says; values outside the lengths become 0. "none": all steps are
            real.
        usual: the side on which the source of the data pads.
        owned: the arrays may be changed in place; otherwise they are copied where they must change.

    Returns:
        split -> array with padding in front, lengths (N,) from 1 to T. A sample without a real step has length 1.

    Raises:
        UserError: many samples have all-zero steps on the unusual side, and nothing says whether they are padding.
    """
    if padding is not None:
        choose("padding", padding, CHOICES)
    if padding == "none":
        return {name: (array, np.full(len(array), array.shape[1])) for name, array in arrays.items()}
    zeros = {name: dict(zip(SIDES, edge_zeros(array), strict=True)) for name, array in arrays.items()}
    side = padding
    if side is None and lengths:
        side = _side_of_lengths(arrays, lengths, zeros, usual)
        if side is None:  # `validate` refuses the first sample
            return {n: (array, _real(n, array, lengths, zeros[n][usual])) for n, array in arrays.items()}
    side = side or _side_of_zeros(modality, arrays, zeros, usual)
    settled = {}
    for name, array in arrays.items():
        real = _real(name, array, lengths, zeros[name][side])
        clean = bool((zeros[name][side] >= array.shape[1] - real).all())
        if not clean or (side == "behind" and bool((real < array.shape[1]).any())):
            array = array if owned and array.flags.writeable else array.copy()
            _move(array, real, side)
        settled[name] = array, real
    return settled


def _real(name: str, array: Array, lengths: Mapping[str, Array], zeros: Array) -> Array:
    """The known lengths of a split, or those that all-zero steps on one side leave."""
    return np.asarray(lengths[name]) if name in lengths else np.maximum(array.shape[1] - zeros, 1)


def _side_of_lengths(
    arrays: Mapping[str, Array], lengths: Mapping[str, Array], zeros: Mapping[str, Mapping[Side, Array]], usual: Side
) -> Side | None:
    """The side on which only zeros stand outside the lengths, the usual one if both are so; None if neither is."""
    for side in (usual, _other(usual)):
        if all((zeros[n][side] >= arrays[n].shape[1] - np.asarray(real)).all() for n, real in lengths.items()):
            return side
    return None


def _side_of_zeros(
    modality: str, arrays: Mapping[str, Array], zeros: Mapping[str, Mapping[Side, Array]], usual: Side
) -> Side:
    """The usual side; refused if many samples have all-zero steps on the other one."""
    samples = sum(map(len, arrays.values()))
    counts = {side: sum(_some(zeros[name][side], array) for name, array in arrays.items()) for side in SIDES}
    unusual = counts[_other(usual)]
    if unusual > max(FEW, FEW_SHARE * samples) and RARER * unusual > counts[usual]:
        raise UserError(
            f"{modality}: {counts['behind']} of {samples} samples end in all-zero steps and {counts['front']} begin "
            f"with them, and no lengths say whether these are padding; {HOW}"
        )
    return usual


def _some(zeros: Array, array: Array) -> int:
    """Samples with some but not only all-zero steps."""
    return int(((zeros > 0) & (zeros < array.shape[1])).sum())


def _other(side: Side) -> Side:
    return "behind" if side == "front" else "front"


def _move(array: Array, lengths: Array, side: Side) -> None:
    """Move the real steps of each sample to the end, in place, and set the others to 0."""
    steps = array.shape[1]
    for rows in chunks(array):
        block, real = array[rows], lengths[rows]
        if side == "behind":
            block = block[np.arange(len(block))[:, None], (np.arange(steps) + real[:, None]) % steps]
        block[is_padding(real, steps)] = 0
        array[rows] = block
