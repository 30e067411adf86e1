"""Names of the jobs of a root, and the handle of an attempt's job."""

from __future__ import annotations

from mmkd.attempts import Attempt
from mmkd.config import digest
from mmkd.rundir import Root
from slurm.backend import Handle


def handle_of(attempt: Attempt) -> Handle:
    """Return the handle of an attempt's job, without an id where none was recorded."""
    submitted = attempt.submitted
    return Handle(submitted.name, submitted.job, submitted.worker)


def job_tag(root: Root) -> str:
    """Return the beginning of the names of all jobs of a root."""
    return f"mmkd-{digest(str(root.path))[:6]}"


def controller_job(root: Root, study: str) -> str:
    """Return the name of the job of a study's detached controller."""
    return f"{job_tag(root)}.controller.{study}"


def worker_job(root: Root, study: str) -> str:
    """Return the name of the jobs of a study's workers."""
    return f"{job_tag(root)}.worker.{study}"
