"""A root with networks that were trained, in a moment, by the code that jobs run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from figure_root import FigureRoot
from recorded import winner_record

from mmkd.config import (
    DataSource,
    Distillation,
    Network,
    StudentConfig,
    TeacherConfig,
    Training,
    digest,
    identity,
    to_json,
)
from mmkd.distillation import complete
from mmkd.files import write_json
from mmkd.rundir import Root, TrialDir
from mmkd.trial import run_trial

SEEDS = (1, 2)
NETWORK = Network(width=8, heads=2, layers=2, fusion_layers=1)


def _common(data: tuple[Path, str], seed: int) -> dict[str, Any]:
    source = DataSource(path=str(data[0]), fingerprint=data[1])
    training = Training(epochs=2, batch_size=24, learning_rate=3e-3)
    return {"data": source, "network": NETWORK, "training": training, "seed": seed, "evaluate_test": True}


def _begun(trial: TrialDir, config: TeacherConfig | StudentConfig, train: bool) -> None:
    trial.path.mkdir(parents=True, exist_ok=True)
    write_json(trial.config, to_json(config))
    if train:
        run_trial(config, trial.path)


def build_trained(path: Path, data: tuple[Path, str], *, train: bool = True, **rows: dict[str, Any]) -> FigureRoot:
    """A study of `rows`: name -> method, and if need be pairing, settings and network; two seeds and two teachers.

    `data` is a data file and its fingerprint. Without `train` all runs wait to be submitted.
    """
    root = FigureRoot(path)
    teachers = {seed: TeacherConfig.model_validate(_common(data, seed)) for seed in SEEDS}
    for teacher in teachers.values():
        _begun(Root(path).teacher(identity(teacher)), teacher, train)
    for name, row in rows.items():
        method, pairing = row["method"], row.get("pairing", "others")
        directory = root.begin(name, f"Row {name}", seeds=len(SEEDS), method=method, pairing=pairing, space={})
        final_runs = {}
        for seed in SEEDS:
            known = _common(data, seed) | {"network": row.get("network", NETWORK)}
            config = StudentConfig(
                **known,
                primary="video",
                pairing=pairing,
                distillation=complete(Distillation(method=method, settings=row.get("settings", {}))),
                teacher=None if method == "no_kd" else teachers[seed],
            )
            trial = Root(path).row(name, "0" * 8).final_run(seed, digest(to_json(config)))
            _begun(trial, config, train)
            final_runs[seed] = trial.path.name
        write_json(directory / "winner.json", winner_record(final_runs, 0))
    root.write(control="none" if "none" in rows else None)
    return root
