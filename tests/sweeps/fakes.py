"""A backend that trains nothing: it stands beside the interface that it fakes."""

import random
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmkd.attempts import record_run
from mmkd.config import StudentConfig, TeacherConfig, from_json, to_json
from mmkd.failures import Failure
from mmkd.files import read_json
from mmkd.result_file import Predictions, Result, Status, write_result
from mmkd.rundir import TrialDir
from slurm.backend import Backend, Handle, Job, Report


class FakeBackend(Backend):
    """Jobs end at the next poll but `delay`: with a result, or in the way that `fails` says.

    `fails` gets the job and its attempt and returns how it ends: None for a result, else a class. A job's value is a
    function of its configuration alone, as a real trial's is.
    """

    name = "fake"
    prompt = True
    gpus = 0

    def __init__(self, fails: Callable[[Job, int], Failure | None] = lambda job, attempt: None, delay: int = 0) -> None:
        self.fails, self.delay = fails, delay
        self.jobs: list[Job] = []
        self.live: dict[str, int] = {}
        self.most = 0
        self.polls = 0

    def submit(self, job: Job) -> Handle:
        self.jobs.append(job)
        identifier = str(len(self.jobs) - 1)
        self.live[identifier] = self.delay
        self.most = max(self.most, len(self.live))
        return Handle(job.name, identifier)

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        self.polls += 1
        reports = {}
        for handle in handles:
            if not handle.id:
                continue
            if self.live.get(handle.id, 0) > 0:
                self.live[handle.id] -= 1
                reports[handle] = Report(True)
                continue
            if self.live.pop(handle.id, None) is not None:
                self._end(self.jobs[int(handle.id)])
            reports[handle] = Report(False, "node_fail", "gone")
        return reports

    def usage(self, handles: Collection[Handle], *, at_once: bool = False) -> dict[Handle, Mapping[str, Any]]:
        return {}

    def cancel(self, handles: Collection[Handle]) -> None:
        for handle in handles:
            self.live.pop(handle.id, None)

    def _end(self, job: Job) -> None:
        directory, attempt = TrialDir(Path(job.command[3])), int(job.command[5])
        failure = self.fails(job, attempt)
        if failure is not None:
            record_run(directory, attempt, end=str(failure), message=f"attempt {attempt} ended so")
            return
        fake_result(directory)


def fake_result(directory: TrialDir, status: Status = Status.COMPLETE) -> None:
    """Write a result whose loss is the distance of the learning rate from 1e-3 in powers of ten; a teacher's is 1.

    A tuned teacher's is the distance from 5e-3.
    """
    config = from_json(read_json(directory.config), directory.config)
    best = 1e-3 if isinstance(config, StudentConfig) else 5e-3
    loss = abs(float(np.log10(config.training.learning_rate / best)))
    if isinstance(config, TeacherConfig) and not config.tuned_from:
        loss = 1.0
    splits = ("valid", "test") if config.evaluate_test else ("valid",)
    rng = random.Random(config.seed)
    metrics = {s: dict.fromkeys(("accuracy", "weighted_f1", "macro_f1"), rng.random()) for s in splits}
    for values in metrics.values():
        values |= {"loss": loss, "majority_share": 0.4, "majority_accuracy": 0.4}
    predictions = Predictions(np.zeros((2, 3), np.float32), np.zeros(2, np.int64), ["x", "y"])
    result = Result(
        status=status,
        config=to_json(config),
        metrics=metrics if status is Status.COMPLETE else {},
        predictions=dict.fromkeys(metrics, predictions),
        best_epoch=1,
        epochs=1,
        parameters=10,
    )
    write_result(directory, result)
