"""A trial that sleeps instead of training, for benchmarks: `python benchmarks/sleeping_trial.py DIR --attempt K`.

To a controller it is a trial: it holds the lock, and leaves a result and its attempt's record, as `mmkd.trial` does. It
does not import torch.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mmkd.attempts import record_run
from mmkd.files import read_json
from mmkd.lock import FileLock
from mmkd.result_file import Result, Status, write_result
from mmkd.rundir import TrialDir

STARTED = "JOB_STARTED"
"""The variable that holds the time of the job script's first line, in seconds since 1970."""


def slot() -> str:
    """The GPU that this trial has of those that Slurm gave to its job, as `node:the job's:the trial's`."""
    return ":".join(os.environ[name] for name in ("SLURMD_NODENAME", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES"))


def main(arguments: Sequence[str] | None = None, started: float | None = None) -> int:
    """The command. `started`: when a worker forked this trial; None: its job began with the script's first line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0, help="how long it sleeps")
    options = parser.parse_args(arguments)
    directory = TrialDir(options.directory)
    config = read_json(directory.config)
    with FileLock(directory.lock):
        began = time.time()
        record_run(directory, options.attempt, attempt=options.attempt, started=began)
        time.sleep(options.seconds)
        ended = time.time()
        loss = abs(1e-3 - config["training"]["learning_rate"])
        metrics = {split: {"loss": loss, "accuracy": 0.5} for split in ("valid", "test")}
        write_result(directory, Result(Status.COMPLETE, config, metrics=metrics, epochs=1, seconds=ended - began))
        script = float(os.environ[STARTED]) if started is None else started
        facts = {"slot": slot(), "script": script, "began": began, "slept_until": ended}
        record_run(directory, options.attempt, end="complete", ended=time.time(), **facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
