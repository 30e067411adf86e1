"""Records as a controller writes them, with made-up values where a test gives none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmkd.config import ALGORITHM_VERSION


def identity(**known: Any) -> dict[str, Any]:
    what = {"algorithm": ALGORITHM_VERSION, "data": "f" * 64, "primary": "video", "pairing": "others"}
    what |= {"method": "crd", "level": None}
    search = {"settings": {}, "space": {}, "fixed": {}, "sampler": "tpe"}
    networks: dict[str, Any] = {"training": {}, "student": {}, "teacher": None}
    return {**what, **search, **networks, "selection": "loss", **known}


def row_record(facts: Mapping[str, Any] = {}, digest: str = "0" * 64, **known: Any) -> dict[str, Any]:
    source = {"path": "/d.h5", "source": "synthetic (tests)", "fingerprint": "f" * 64}
    names = {"modalities": ["video", "audio"], "classes": ["sad", "neutral", "happy"]}
    return {"digest": digest, "identity": identity(**known), "data": {**source, **names, **facts}}


def winner_record(confirm: Mapping[int, str], trials: int = 1, **known: Any) -> dict[str, Any]:
    facts = {"trial": 0, "value": 0.5, "params": {"learning_rate": 1e-2}, "trials": trials, "numbers": trials}
    names = {str(seed): name for seed, name in confirm.items()}
    return {**facts, "selection": "loss", "seeds": list(confirm), "confirm": names, **known}
