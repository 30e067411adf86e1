"""Roots as a controller and its jobs leave them, written with the functions that these use; and looking at them."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from recorded import row_record
from rich.console import Console

from mmkd.attempts import record_run, record_submission
from mmkd.files import write_json, write_text
from mmkd.metrics_log import append_metrics
from mmkd.result_file import Result, Status, write_result
from mmkd.rundir import Root, RowDir, TrialDir
from mmkd.trial_state import State
from slurm.accounting import QueuedJob
from slurm.monitoring.collecting import Collector
from slurm.monitoring.overview import Overview, make_overview
from slurm.monitoring.screen import draw
from slurm.monitoring.watching import Answer, Sign

EPOCHS = 10
TEACHER = {"branch": None, "network": {"width": 8}, "training": {"epochs": 5}}


class WatchedRoot:
    """A root with rows of a study; times are in seconds before `now`."""

    def __init__(self, path: Path) -> None:
        self.root, self.now = Root(path), time.time()
        self.wanted: list[dict[str, Any]] = []

    def row(
        self, name: str, trials: int = 4, seeds: int = 2, *, selection: str = "loss", teacher: bool = False
    ) -> RowDir:
        row = self.root.row(name, "0" * 8)
        row.path.mkdir(parents=True)
        needed = TEACHER if teacher else None
        training = {"epochs": EPOCHS}
        write_json(row.row, row_record(data="f" * 8, training=training, selection=selection, teacher=needed))
        facts = {"name": name, "label": f"Row {name}", "group": None, "directory": row.path.name}
        self.wanted.append({**facts, "trials": trials, "seeds": list(range(1, seeds + 1)), "teachers": []})
        return row

    def study(self, name: str = "study", **facts: Any) -> None:
        self.root.study(name).parent.mkdir(exist_ok=True)
        write_json(
            self.root.study(name), {"name": name, "title": "A study", "control": None, "rows": self.wanted, **facts}
        )

    def announce(self, directory: TrialDir, attempt: int = 1, *, ago: float = 100.0, **facts: Any) -> None:
        """As the controller does before and after it submits."""
        directory.path.mkdir(parents=True, exist_ok=True)
        write_json(directory.config, {"training": {"epochs": EPOCHS}, "data": {"fingerprint": "f" * 8}, "seed": 0})
        record_submission(directory, attempt, submitted=self.now - ago, **facts)
        write_text(directory.attempt, f"{attempt}\n")

    def run(self, directory: TrialDir, epochs: int = 3, attempt: int = 1, *, ago: float = 100.0, **facts: Any) -> None:
        """A trial that runs in this very process, unless `facts` name another job."""
        job = {"backend": "local", "job": process_id(os.getpid())}
        self.announce(directory, attempt, ago=ago + 2, **{**job, **facts})
        record_run(directory, attempt, started=self.now - ago, host="node1", cuda_visible_devices="0")
        for epoch in range(1, epochs + 1):
            loss = 1 / epoch
            line = {"epoch": epoch, "valid_loss": loss, "valid_accuracy": 1 - loss, "seconds": 2.0 * epoch}
            append_metrics(directory, {**line, "time": self.now - ago + 2 * epoch})

    def end(
        self, directory: TrialDir, end: str, attempt: int = 1, *, ago: float = 50.0, message: str = "", **facts: Any
    ) -> None:
        record_run(directory, attempt, end=end, ended=self.now - ago, message=message)
        record_submission(directory, attempt, end=end, ended=self.now - ago, message=message, **facts)

    def finish(
        self,
        directory: TrialDir,
        loss: float,
        accuracy: float = 0.5,
        status: Status = Status.COMPLETE,
        seconds: float = 20.0,
        ago: float = 50.0,
    ) -> None:
        """A trial that ran for so many seconds and ended `ago`."""
        self.run(directory, EPOCHS, ago=ago + seconds)
        self.end(directory, "complete", ago=ago, gpu_seconds=seconds)
        metrics = {} if status is Status.DIVERGED else {"valid": {"loss": loss, "accuracy": accuracy}}
        write_result(directory, Result(status, {}, epochs=EPOCHS, metrics=metrics))


def process_id(pid: int) -> str:
    """A process as the local backend names it."""
    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time():.2f}:"


def ended_process() -> str:
    """The name of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process_id(child.pid)
    child.communicate(b"\n")
    return name


class FakeSqueue:
    """An executable `squeue` in `folder` that prints `lines`, or complains; it notes how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output, self.calls_file = folder, folder / "output", folder / "calls"
        folder.mkdir()
        self.calls_file.touch()
        program = folder / "squeue"
        program.write_text(f'#!/bin/sh\necho "$@" >> {self.calls_file}\n. {self.output}\n')
        program.chmod(0o755)
        self.show()

    def show(self, *jobs: str) -> None:
        """Jobs as `id|state|reason|node|partition|used|left|start|name`."""
        self.output.write_text("".join(f"echo '{job}'\n" for job in jobs))

    def complain(self, words: str) -> None:
        self.output.write_text(f"echo '{words}' >&2; exit 1\n")

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines()


def look(watched: WatchedRoot, answer: Answer | None = None, study: str | None = "study") -> Overview:
    return make_overview(Collector(watched.root, study).look(), answer)


def conditions(overview: Overview) -> dict[str, State | Sign | Status]:
    return {f"{w.trial.entry.label} {w.trial.entry.name}": w.shown for w in overview.trials}


def text(overview: Overview, width: int = 80, height: int | None = None) -> str:
    console = Console(width=width, height=height or 1000, record=True, file=io.StringIO())
    console.print(draw(overview, width, height))
    return console.export_text()


def queued(job: str, name: str, state: str, **more: str) -> QueuedJob:
    facts = {"reason": "None", "node": "", "partition": "gpu", "used": "0:00", "left": "1:00:00", "start": "N/A"}
    return QueuedJob(id=job, name=name, state=state, **{**facts, **more})
