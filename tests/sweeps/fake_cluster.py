"""A backend that behaves like Slurm, and one launch of one row on it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fakes import FakeBackend
from rich.console import Console

from mmkd.rundir import Root
from slurm.backend import Handle, Job, Report, SubmissionDelayed
from sweeps.controller.loop import Controller
from sweeps.controller.progress import Reporter
from sweeps.controller.row import RowWork
from sweeps.controller.stopping import Stop
from sweeps.rows import Row

TURNS = 400
"""Rounds after which a controller that has not come to its end never will."""


class FakeCluster(FakeBackend):
    """Knows jobs by name too, is slow to tell of an end, and may refuse: `refuses` gets the number of a submission."""

    name = "slurm"
    prompt = False
    gpus = 2

    def __init__(self, refuses: Callable[[int], Exception | None] = lambda n: None, **options: Any) -> None:
        super().__init__(**options)
        self.refuses, self.submissions = refuses, 0

    def submit(self, job: Job) -> Handle:
        self.submissions += 1
        refusal = self.refuses(self.submissions)
        if isinstance(refusal, SubmissionDelayed) and not refusal.certain:
            super().submit(job)  # Slurm made it, and could not say so
        if refusal is not None:
            raise refusal
        return super().submit(job)

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        ids = {job.name: str(number) for number, job in enumerate(self.jobs)}
        known = {handle: Handle(handle.name, handle.id or ids.get(handle.name, "")) for handle in handles}
        reports = super().poll([handle for handle in known.values() if handle.id])
        gone = Report(False, "cancelled", "no job of that name")
        return {h: replace(reports[k], handle=k) if k.id else gone for h, k in known.items()}

    def usage(self, handles: Collection[Handle], *, at_once: bool = False) -> dict[Handle, Mapping[str, Any]]:
        return {handle: {"gpu_seconds": 3600.0, "node": "n1"} for handle in handles}


def run(row: Row, root: Root, backend: FakeBackend, parallel: int = 2, **options: Any) -> tuple[RowWork, str]:
    """One launch of one row, to its end; the row and what was said."""
    turns = 0

    def stop() -> Stop | None:
        nonlocal turns
        turns += 1
        assert turns < TURNS, "it goes round for ever"
        return None

    work = RowWork(row, parallel, Path(__file__))
    console = Console(record=True, quiet=False, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    try:
        with Reporter(console) as reporter:
            asked = options.pop("stop", stop)
            Controller([work], root, backend, parallel, reporter, asked, interval=0.001, **options).run()
    finally:
        work.close()
    return work, console.export_text()
