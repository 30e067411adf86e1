"""A small data set that every test may vary."""

from __future__ import annotations

import numpy as np

from mmkd.data import SPLITS, Split

FACTS = {"classes": ["no", "yes", "maybe"], "source": "synthetic (tests)", "license": "CC0-1.0"}


def make_splits(seed: int = 0, samples: int = 12) -> dict[str, Split]:
    """Two unaligned modalities; video of varying length, padded in front."""
    rng = np.random.default_rng(seed)
    splits = {}
    for name in SPLITS:
        video = rng.normal(2.0, 3.0, (samples, 6, 4)).astype("float32")
        audio = rng.normal(-1.0, 0.5, (samples, 9, 2)).astype("float16")
        lengths = rng.integers(1, 7, samples)
        video[np.arange(6) < 6 - lengths[:, None]] = 0.0
        splits[name] = Split(arrays={"video": video, "audio": audio}, labels=rng.integers(0, 3, samples))
    return splits
