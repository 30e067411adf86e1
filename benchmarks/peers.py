"""What a user might pick instead of mmkd, for `dispatch.py`: Hydra's sweeper, HyperQueue, or a loop of their own."""

from __future__ import annotations

import json
import os
import subprocess
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import optuna
import submitit
from schedule import Slept

HYPERQUEUE = ("hyperqueue==0.27.*", "optuna==5.*")
HYDRA = ("hydra-core==1.3.*", "hydra-submitit-launcher==1.2.*", "hydra-optuna-sweeper==1.3.*")


def make_environment(folder: Path, packages: Sequence[str]) -> Path:
    """A virtual environment with these packages in `folder`, made on first use; its interpreter."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def run_hydra(python: Path, lengths: Sequence[float], batch: int, folder: Path) -> tuple[float, list[Slept]]:
    """Tune with Hydra's Optuna sweeper (TPE, its default) and submitit launcher, `batch` jobs at once.

    Returns the time of the first submission, and the trials.
    """
    (folder / "lengths.json").write_text(json.dumps(list(lengths)))
    launcher = {"gpus_per_node": 1, "cpus_per_task": 1, "mem_gb": 1, "timeout_min": 10, "name": "hydra"}
    command = [
        python, Path(__file__).with_name("hydra_sleep.py"), "--multirun", "hydra/sweeper=optuna",
        "hydra/launcher=submitit_slurm", f"hydra.sweeper.n_trials={len(lengths)}", f"hydra.sweeper.n_jobs={batch}",
        *(f"hydra.launcher.{name}={value}" for name, value in launcher.items()),
        f"hydra.sweep.dir={folder}/sweep", f"folder={folder}", "learning_rate=tag(log,interval(0.0001,0.01))",
    ]  # fmt: skip
    with (folder / "hydra.log").open("w") as log:
        subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=True)
    # submitit writes a batch's pickles and script just before it calls sbatch.
    first = min(path.stat().st_mtime for path in (folder / "sweep" / ".submitit").rglob("*.sh"))
    found = (json.loads((folder / f"{number}.json").read_text()) for number in range(len(lengths)))
    return first, [Slept(**facts) for facts in found]


def run_hyperqueue(
    python: Path, lengths: Sequence[float], slots: int, parallel: int, folder: Path
) -> tuple[float, list[Slept]]:
    """Tune with a loop around HyperQueue, `parallel` tasks submitted at once, without Slurm; see `run_hydra`."""
    (folder / "lengths.json").write_text(json.dumps(list(lengths)))
    options = ("--slots", str(slots), "--parallel", str(parallel))
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}  # its tasks run `python`
    with (folder / "hyperqueue.log").open("w") as log:
        command = [python, Path(__file__).with_name("hyperqueue_sleep.py"), folder, *options]
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True, env=environment)
    found = (json.loads((folder / f"{number}.json").read_text()) for number in range(len(lengths)))
    return json.loads((folder / "first.json").read_text()), [Slept(**facts) for facts in found]


def run_loop(lengths: Sequence[float], parallel: int, folder: Path) -> tuple[float, list[Slept]]:
    """Tune with a loop of Optuna's ask and tell around submitit, `parallel` jobs at once; see `run_hydra`."""
    cloudpickle.register_pickle_by_value(__import__(__name__))
    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(job_name="loop", gpus_per_node=1, cpus_per_task=1, mem="1GB", time=10)
    study, asked, slept = optuna.create_study(), 0, []
    jobs: dict[submitit.Job[dict[str, Any]], optuna.Trial] = {}
    first = time.time()
    while len(slept) < len(lengths):
        while asked < len(lengths) and len(jobs) < parallel:
            trial = study.ask({"learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)})
            jobs[executor.submit(sleep, trial.number, lengths[trial.number])] = trial
            asked += 1
        for job in [job for job in jobs if job.done()]:
            trial = jobs.pop(job)
            slept.append(Slept(**job.result()))
            study.tell(trial, abs(1e-3 - trial.params["learning_rate"]))
        time.sleep(0.5)
    return first, slept


def sleep(number: int, seconds: float) -> dict[str, Any]:
    """What a job of the loop runs: the fields of `Slept`."""
    began = time.time()
    time.sleep(seconds)
    slot = f"{os.environ['SLURMD_NODENAME']}:{os.environ['SLURM_JOB_GPUS']}"
    return {"number": number, "slot": slot, "began": began, "ended": time.time()}
