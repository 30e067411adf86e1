"""A study of two rows on a tiny data set, which trains in moments."""

import itertools
from pathlib import Path

import numpy as np

from mmkd.data import Split, write_dataset

STUDY = """
title = "a tiny study"
control = "no_kd"

[defaults]
trials = 3
seeds = 2
sampler = "random"

[defaults.space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }

[teacher]
width = 8
heads = 2
layers = 1
fusion_layers = 1

[student]
width = 8
heads = 2
layers = 2
fusion_layers = 1

[training]
epochs = 3
batch_size = 16

[[rows]]
name = "no_kd"
label = "Student without KD"
method = "no_kd"

[[rows]]
name = "crd"
label = "CRD on attention maps"
method = "crd"
level = "attention_maps"
settings = { embedding = 8, rows = 2 }

[rows.space]
alpha = { low = 0.0, high = 1.0 }
beta = { low = 0.0, high = 1.0 }
temperature = { low = 0.05, high = 1.0, log = true, default = 0.07 }
"""


def write_tiny_data(path: Path) -> None:
    """Three modalities, three classes: each modality tells a class or two by its mean, under noise.

    Samples come from eight subjects, twelve from each, who are in one split each.
    """
    rng = np.random.default_rng(0)
    subjects = itertools.count()
    splits = {}
    for split, n in {"train": 48, "valid": 24, "test": 24}.items():
        labels = np.arange(n) % 3
        arrays = {
            "video": rng.normal(size=(n, 8, 3)) + labels[:, None, None] * 0.5,
            "audio": rng.normal(size=(n, 6, 2)) + (labels == 1)[:, None, None],
            "language": rng.normal(size=(n, 4, 4)) + (labels == 2)[:, None, None],
        }
        groups = [f"s{subject}" for subject in itertools.islice(subjects, n // 12) for _ in range(12)]
        arrays = {m: a.astype(np.float32) for m, a in arrays.items()}
        splits[split] = Split(arrays=arrays, labels=labels, groups=groups)
    write_dataset(path, splits, classes=["a", "b", "c"], source="synthetic (tiny, for tests)", license="none")


def write_tiny_study(folder: Path, rows: int = 2) -> Path:
    """The study's file with its first rows, and its data beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tiny_data(folder / "tiny.h5")
    path = folder / "tiny.toml"
    text = "[[rows]]".join(STUDY.split("[[rows]]")[: 1 + rows])
    path.write_text(f'data = "{folder / "tiny.h5"}"\n{text}')
    return path
