"""Synthetic data in seconds: three unaligned modalities, each of which tells a part of the label.

Each modality divides the seven classes into groups and shows a short motif of the sample's group, once, at a
random time in noise. No modality separates all classes, all three together do:

    class       0    1    2    3    4    5    6     best guess from it alone
    video       a    a    b    b    b    c    c     .59
    audio       a    b    a    b    a    b    a     .61
    language    a    a    a    b    b    b    b     .56

Sometimes a modality shows the motif of a wrong group. Shares of the classes are skewed like MOSEI's; the most
frequent has .41.

Samples also come from speakers, each in one split, so that splits can be drawn by group (`mmkd.data.splits`). Nothing
in a sample depends on its speaker.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from mmkd.data.dataset import Array, Split
from mmkd.data.hdf5_write import write_dataset
from mmkd.errors import choose

SHARES = (0.03, 0.08, 0.15, 0.41, 0.20, 0.10, 0.03)
GROUPS = {
    "video": (0, 0, 1, 1, 1, 2, 2),
    "audio": (0, 1, 0, 1, 0, 1, 0),
    "language": (0, 0, 0, 1, 1, 1, 1),
}
WRONG = 0.1  # share of samples in which a modality shows a random group
STRENGTH = 1.3  # of a motif's features, in standard deviations of the noise
SHORTEST = 0.6  # real steps of the shortest samples, as a share of all steps


@dataclass(frozen=True)
class Size:
    """Samples of each split, (steps, features, steps of a motif) of each modality, and samples of a speaker."""

    samples: dict[str, int]
    shapes: dict[str, tuple[int, int, int]]
    per_speaker: int


SIZES = {
    "small": Size(
        {"train": 1000, "valid": 400, "test": 800},
        {"video": (24, 10, 4), "audio": (32, 8, 5), "language": (12, 12, 2)},
        100,
    ),
    "mosei": Size(
        {"train": 512, "valid": 128, "test": 256},
        {"video": (500, 35, 40), "audio": (500, 74, 40), "language": (50, 300, 4)},
        32,
    ),
}


def make_synthetic(path: str | Path, size: Literal["small", "mosei"] = "small", seed: int = 0) -> str:
    """Write a synthetic data set to `path`; return its fingerprint, which size and seed determine.

    Args:
        path: the file to make.
        size: `small` to learn from in seconds; `mosei` has the shapes of CMU-MOSEI, to measure speed and memory with.
        seed: of everything random.

    Raises:
        UserError: unknown size.
        OSError: `path` cannot be written.
    """
    shape = SIZES[choose("size", size, SIZES)]
    rng = np.random.default_rng(seed)
    motifs = {m: _motifs(rng, max(GROUPS[m]) + 1, *shape.shapes[m][1:]) for m in GROUPS}
    speakers = itertools.count(1)
    splits = {
        name: replace(_split(rng, n, shape, motifs), groups=_groups(n, shape.per_speaker, speakers))
        for name, n in shape.samples.items()
    }
    return write_dataset(
        path,
        splits,
        classes=[f"class {k}" for k in range(len(SHARES))],
        source=f"synthetic ({size}, seed {seed})",
        license="CC0-1.0",
        notes="made by mmkd.data.synthetic; says nothing about real data",
    )


def _groups(samples: int, each: int, speakers: Iterator[int]) -> list[str]:
    """Speakers of a split's samples: the next ones, each with as many samples."""
    numbers = [next(speakers) for _ in range(-(-samples // each))]
    return [f"speaker {numbers[n // each]:02}" for n in range(samples)]


def _motifs(rng: np.random.Generator, groups: int, features: int, steps: int) -> Array:
    """(groups, steps, features) float32: each group a direction in feature space that swells and fades."""
    directions = np.sign(rng.normal(size=(groups, 1, features)))
    swell = np.sin(np.pi * (np.arange(steps) + 0.5) / steps)[:, None]
    motifs: Array = (STRENGTH * directions * swell).astype(np.float32)
    return motifs


def _split(rng: np.random.Generator, samples: int, size: Size, motifs: dict[str, Array]) -> Split:
    labels = rng.choice(len(SHARES), samples, p=SHARES)
    arrays, lengths = {}, {}
    for modality, (steps, features, _) in size.shapes.items():
        shown = np.array(GROUPS[modality])[labels]
        wrong = rng.random(samples) < WRONG
        shown[wrong] = rng.integers(0, len(motifs[modality]), wrong.sum())
        lengths[modality] = rng.integers(int(SHORTEST * steps), steps, samples, endpoint=True)
        arrays[modality] = rng.standard_normal((samples, steps, features), np.float32)
        for array, length, motif in zip(arrays[modality], lengths[modality], motifs[modality][shown], strict=True):
            start = rng.integers(steps - length, steps - len(motif), endpoint=True)
            array[start : start + len(motif)] += motif
            array[: steps - length] = 0.0
    return Split(arrays=arrays, lengths=lengths, labels=labels)
