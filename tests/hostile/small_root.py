"""A root as a launch leaves it, through the writers that jobs use, with made-up numbers."""

from pathlib import Path
from typing import Any

import numpy as np
from recorded import row_record, winner_record

from mmkd.attempts import record_run, record_submission
from mmkd.config import DataSource, Distillation, Network, StudentConfig, Training, to_json
from mmkd.files import write_json
from mmkd.metrics import classification_metrics
from mmkd.result_file import Predictions, Result, Status, write_result
from mmkd.rundir import Root, TrialDir


def make_small_root(path: Path, **study: Any) -> Path:
    """See the fixture `small_root`; `study` are facts of its record."""
    root = Root(path)
    row = root.row("kd", "0" * 8)
    row.path.mkdir(parents=True)
    data = {"modalities": ["video"], "classes": ["a", "b", "c"]}
    write_json(row.row, row_record(data, method="kd", training={"epochs": 2}))
    confirm = {seed: row.final_run(seed, "ab12cd34") for seed in (1, 2)}
    for seed, place in {0: row.trial(0), **confirm}.items():
        make_trial(place, seed)
    write_json(row.winner, winner_record({seed: place.path.name for seed, place in confirm.items()}))
    asked = {"trials": 1, "seeds": [1, 2], "teachers": []}
    entry = {"name": "kd", "label": "Hinton's KD", "group": None, "paper": None, "directory": row.path.name, **asked}
    root.study("demo").parent.mkdir()
    write_json(root.study("demo"), {"name": "demo", "title": "Demo", "control": None, "rows": [entry], **study})
    return path


def make_trial(place: TrialDir, seed: int) -> None:
    """A finished trial; confirming runs (seed above 0) have read test."""
    config = StudentConfig(
        data=DataSource(path="/data/d.h5", fingerprint="f" * 64),
        network=Network(),
        training=Training(epochs=2),
        seed=seed,
        evaluate_test=seed > 0,
        primary="video",
        pairing="others",
        distillation=Distillation(method="kd"),
    )
    place.path.mkdir(parents=True)
    write_json(place.config, to_json(config))
    place.attempt.write_text("1\n")
    record_submission(place, 1, backend="local", job="node1:1:1.00:", submitted=1.0, end="complete")
    record_run(place, 1, started=1.0, host="node1", end="complete", message="", ended=3.0, seconds=2.0)
    labels = np.arange(30) % 3
    logits = np.random.default_rng(seed).normal(size=(30, 3)).astype(np.float32)
    outputs = Predictions(logits, labels, [f"sample-{number}" for number in range(30)])
    splits = ("valid", "test") if seed else ("valid",)
    result = Result(
        Status.COMPLETE,
        to_json(config),
        best_epoch=1,
        epochs=2,
        seconds=2.0,
        parameters=9,
        metrics={split: classification_metrics(logits, labels, 0) for split in splits},
        curves={"valid_loss": [0.6, 0.5], "valid_accuracy": [0.4, 0.5]},
        predictions=dict.fromkeys(splits, outputs),
    )
    write_result(place, result)
