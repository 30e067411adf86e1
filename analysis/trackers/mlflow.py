"""Write runs to an MLflow tracking store, an SQLite file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

# MLflow counts its users over the network unless told not to before its import.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from analysis.trackers.tracked_run import PROJECT, Exporter, TrackedRun
from mmkd.errors import UserError
from mmkd.trial_state import State

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it announces every table that it makes

T = TypeVar("T")

VIEW = "mlflow server --backend-store-uri sqlite:///{directory}/mlflow.db   (pip install mlflow)"
_ID, _CONTENT = "mmkd.id", "mmkd.content"
"""Tags: id of the run, and hash of what was exported of it, which is written last."""
_METRICS, _PARAMETERS = 1000, 100
"""Most that MLflow takes in one call."""
_STATUS = {State.FAILED.value: "FAILED", State.SUPERSEDED.value: "KILLED"}


class _Store:
    """A tracking store and the runs in it.

    MLflow ignores a metric that it has with the same step, time and value, and a parameter that has not changed.
    Exporting a run again therefore adds what is new, also after an export that was killed.
    """

    def __init__(self, directory: Path) -> None:
        path = directory.absolute() / "mlflow.db"
        if set(str(path)) & set("?#%"):
            raise UserError(f"{path}: MLflow takes '?', '#' and '%' in a path as parts of a URL; choose another DIR")
        directory.mkdir(parents=True, exist_ok=True)
        try:
            self.client = MlflowClient(f"sqlite:///{path}")
            found = self.client.get_experiment_by_name(PROJECT)
            self.experiment = (
                found.experiment_id
                if found
                else self.client.create_experiment(PROJECT, artifact_location=(path.parent / "artifacts").as_uri())
            )
            self.known = self._read()
        except (MlflowException, SQLAlchemyError) as error:
            raise UserError(f"{path}: not an MLflow store ({str(error).splitlines()[0]}); choose another DIR") from None

    def _read(self) -> dict[str, tuple[str, str]]:
        """MLflow's id and the exported content of each run, by our id."""
        found: dict[str, tuple[str, str]] = {}
        token: str | None = None
        while token is None or token:
            page = self.client.search_runs([self.experiment], "", ViewType.ALL, max_results=1000, page_token=token)
            for run in page:
                if _ID in run.data.tags:
                    found[run.data.tags[_ID]] = (run.info.run_id, run.data.tags.get(_CONTENT, ""))
            token = page.token or ""
        return found

    def export(self, run: TrackedRun) -> bool:
        """Write what the store lacks of a run. Return True if that was anything."""
        key, content = self.known.get(run.id, ("", ""))
        if content == run.content:
            return False
        if not key:
            created = self.client.create_run(
                self.experiment, start_time=_milliseconds(run.started), tags={_ID: run.id}, run_name=run.name
            )
            key = created.info.run_id
        for metrics in _batches(_metrics(run), _METRICS):
            self.client.log_batch(key, metrics=metrics)
        for parameters in _batches([Param(name, str(value)) for name, value in run.parameters.items()], _PARAMETERS):
            self.client.log_batch(key, params=parameters)
        if run.is_finished or run.state in _STATUS:
            self.client.set_terminated(key, _STATUS.get(run.state, "FINISHED"), _milliseconds(run.ended))
        tags = {**run.tags, _CONTENT: run.content}
        self.client.log_batch(key, tags=[RunTag(name, value) for name, value in tags.items()])
        self.known[run.id] = (key, run.content)
        return True


@contextmanager
def exporter(directory: Path) -> Iterator[Exporter]:
    """Write runs to `mlflow.db` in `directory`.

    Raises:
        UserError: the file is not an MLflow store, or its path cannot be one's.
    """
    yield _Store(directory).export


def _metrics(run: TrackedRun) -> list[Metric]:
    epochs = [
        Metric(name, value, _milliseconds(epoch.time), epoch.number)
        for epoch in run.epochs
        for name, value in epoch.values.items()
    ]
    time, step = _milliseconds(run.measured), len(run.epochs)
    return epochs + [Metric(f"result/{name}", value, time, step) for name, value in run.result.items()]


def _batches(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)
