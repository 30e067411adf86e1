"""The function that Hydra's sweeper tunes in `benchmarks/dispatch.py --hydra`: it sleeps, and notes when and where."""

import json
import os
import time
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

ConfigStore.instance().store("sleep", {"learning_rate": 1e-3, "folder": "???"})


@hydra.main(version_base=None, config_name="sleep")
def sleep(config: DictConfig) -> float:
    """Sleep as long as this trial is given; its loss."""
    number, folder = HydraConfig.get().job.num, Path(config.folder)
    seconds = json.loads((folder / "lengths.json").read_text())[number]
    began = time.time()
    time.sleep(seconds)
    slot = f"{os.environ['SLURMD_NODENAME']}:{os.environ['SLURM_JOB_GPUS']}"
    facts = {"number": number, "slot": slot, "began": began, "ended": time.time()}
    (folder / f"{number}.json").write_text(json.dumps(facts))
    return abs(1e-3 - config.learning_rate)


if __name__ == "__main__":
    sleep()
