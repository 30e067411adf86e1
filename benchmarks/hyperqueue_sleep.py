"""A loop of Optuna's ask and tell around HyperQueue, for `dispatch.py --hyperqueue`, run in an environment of its own.

PyPI's `hyperqueue` holds the Python interface with server and worker, but not the program `hq`, which submits
HyperQueue's workers to Slurm. One worker with all slots therefore runs on this machine.
"""

import argparse
import json
import os
import time
from pathlib import Path

import optuna
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

LOOK_SECONDS = 0.05
"""Between two looks for finished trials, as in mmkd's controller. HyperQueue's client can only wait for all of them."""


def sleep(number: int, seconds: float, folder: str) -> None:
    """What a task runs: the fields of `schedule.Slept`, in a file."""
    began = time.time()
    time.sleep(seconds)
    facts = {"number": number, "slot": os.environ["HQ_CPUS"], "began": began, "ended": time.time()}
    part = Path(folder) / f"{number}.part"
    part.write_text(json.dumps(facts))
    part.rename(part.with_suffix(".json"))


def main() -> None:
    """The command. Writes the time of the first submission to FOLDER/first.json, and each trial to FOLDER/N.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--parallel", type=int, required=True)
    options = parser.parse_args()
    folder, lengths = options.folder, json.loads((options.folder / "lengths.json").read_text())
    study, asked, told = optuna.create_study(), 0, 0
    running: dict[int, optuna.Trial] = {}
    with LocalCluster(str(folder / "server"), WorkerConfig(cores=options.slots)) as cluster:
        client = cluster.client()
        (folder / "first.json").write_text(json.dumps(time.time()))
        while told < len(lengths):
            while asked < len(lengths) and len(running) < options.parallel:
                trial = study.ask({"learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)})
                job = Job(folder)
                job.function(sleep, args=(trial.number, lengths[trial.number], str(folder)))
                client.submit(job)
                running[trial.number] = trial
                asked += 1
            for number in [number for number in running if (folder / f"{number}.json").exists()]:
                trial = running.pop(number)
                study.tell(trial, abs(1e-3 - trial.params["learning_rate"]))
                told += 1
            time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
