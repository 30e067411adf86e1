"""Processor time of a trial's start, part by part, without training it: `python benchmarks/training_start.py DIR`.

DIR is a finished or unfinished trial's directory of a student; nothing is written there.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

LAPS: list[tuple[str, float]] = [("Python itself", time.process_time())]


def lap(name: str) -> None:
    """Note that the part called `name` ends here."""
    LAPS.append((name, time.process_time()))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR")
    directory = parser.parse_args().directory
    lap("argparse")
    import torch

    lap("import torch")
    import h5py
    import numpy as np
    import pydantic

    lap(f"numpy {np.__version__}, h5py {h5py.__version__}, pydantic {pydantic.VERSION}")
    from mmkd.trial import StudentConfig, Trainer, TrialDir, from_json, make_lesson, prepare_torch, read_json

    lap("the rest of import mmkd.trial")
    trial = TrialDir(directory)
    config = from_json(read_json(trial.config), trial.config)
    assert isinstance(config, StudentConfig)
    # Making the first optimiser imports torch._dynamo; so does asking torch to be deterministic.
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    lap("torch's first optimiser")
    device = prepare_torch(config)
    lap("threads, seed, determinism")
    lesson = make_lesson(config, trial, device)
    lap("data, networks, teacher's weights")
    Trainer(config, lesson, trial, None, lambda: None, lambda: False)
    lap("trainer")
    for (_, began), (name, ended) in itertools.pairwise(LAPS):
        print(f"{1e3 * (ended - began):8,.0f} ms  {name}")
    print(f"{1e3 * LAPS[-1][1]:8,.0f} ms  in all, of the processor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
