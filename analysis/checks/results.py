"""Check a run's result file against itself and its directory: scores, samples, configuration, weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.checks.finding import Finding, first_few
from analysis.loading.runs import Runs
from mmkd.files import read_json
from mmkd.metrics import cross_entropy, f1_scores
from mmkd.records import differences
from mmkd.result_file import Predictions, Result, ResultError, read_result, weights_checksum
from mmkd.rundir import TrialDir


def wrong_results(runs: Runs, used: pd.DataFrame) -> Iterator[Finding]:
    """Findings about the finished runs in `used`, lines of `Runs.trials`."""
    samples: dict[tuple[str, str], tuple[bytes, str]] = {}
    for line in used.to_dict("records"):
        directory = str(line["directory"])
        trial = TrialDir(runs.root / directory)
        try:
            result = read_result(trial.result)
        except ResultError as error:  # in its curves or predictions: the rest was read before
            yield Finding("rejected", str(error).replace(f"{runs.root}/", ""))
            continue
        yield from _scores(directory, result)
        yield from _configuration(directory, trial, result)
        if line["kind"] != "tuning" and line["weights"] == line["weights"]:
            yield from _weights(directory, trial, str(line["weights"]))
        test = result.predictions.get("test")
        if test is not None and line["kind"] == "confirm":
            content = "\0".join(test.ids).encode() + test.labels.tobytes()
            known, first = samples.setdefault((str(line["row"]), str(line["split"])), (content, directory))
            if known != content:
                yield Finding("samples", f"{directory}: other test samples (ids and labels) than {first}")


def _scores(directory: str, result: Result) -> Iterator[Finding]:
    """Metrics that are not those of the stored predictions."""
    for split, stored in result.metrics.items():
        if split not in result.predictions:
            yield Finding("scores", f"{directory}: it has a {split} score, but no predictions to check it by")
            continue
        again = _again(result.predictions[split])
        wrong = [
            f"{name} {stored[name]:.6g}, not {value:.6g}"
            for name, value in again.items()
            if name in stored and not np.isclose(stored[name], value, rtol=1e-4, atol=1e-6)
        ]
        if wrong:
            yield Finding("scores", f"{directory}: {split} scores are not its predictions': {', '.join(wrong)}")


def _again(found: Predictions) -> Mapping[str, float]:
    predicted = found.logits.argmax(axis=1)
    weighted, macro = f1_scores(predicted, found.labels, found.logits.shape[1])
    accuracy, loss = float(np.mean(predicted == found.labels)), cross_entropy(found.logits, found.labels)
    return {"accuracy": accuracy, "weighted_f1": weighted, "macro_f1": macro, "loss": loss}


def _configuration(directory: str, trial: TrialDir, result: Result) -> Iterator[Finding]:
    """A config.json that is not what was trained, but for paths."""
    config = read_json(trial.config) if trial.config.exists() else None
    if not isinstance(config, Mapping):
        yield Finding("configurations", f"{directory}/config.json: gone or damaged; result.h5 has it too")
        return
    pairs = differences([config, result.config]).items()
    differing = [(key, *pair) for key, pair in pairs if not key.endswith("data.path")]
    if differing:
        listed = first_few(f"{key} {_short(mine)}, result.h5 {_short(theirs)}" for key, mine, theirs in differing)
        yield Finding("configurations", f"{directory}/config.json: not what was trained: {listed}")


def _short(value: Any) -> str:
    return str(value)[:40]


def _weights(directory: str, trial: TrialDir, named: str) -> Iterator[Finding]:
    """Weights that are gone, or are not those that the result names."""
    try:
        problem = "" if weights_checksum(trial) == named else "not those that result.h5 names"
    except OSError as error:
        problem = str(error.strerror)
    if problem:
        yield Finding("weights", f"{directory}/weights.pt: {problem}; remove the directory, launch again")
