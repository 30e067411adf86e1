"""Faults of `faults.py` that come from the site: clocks, a bad node, a stripped environment, a queue that hangs."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from fault_study import AttackedStudy, environment

CLOCK = Path(__file__).resolve().parent / "other_clock"
"""On PYTHONPATH it sets a Python process's clock ahead or behind."""


def clock_ahead(study: AttackedStudy, chance: random.Random) -> str:
    """The controller dies; the clock of its successor, or of that one's trials, is two hours ahead."""
    return _other_clock(study, chance, 7200)


def clock_behind(study: AttackedStudy, chance: random.Random) -> str:
    """The controller dies; the clock of its successor, or of that one's trials, is two hours behind."""
    return _other_clock(study, chance, -7200)


def _other_clock(study: AttackedStudy, chance: random.Random, seconds: int) -> str:
    if not _kill_controller(study):
        return ""
    whose = chance.choice(["controller", "trials"])
    path = os.pathsep.join([str(CLOCK), environment()["PYTHONPATH"]])
    study.start(PYTHONPATH=path, OTHER_CLOCK=f"{whose}:{seconds}")
    return f"the {whose}'s clock differs by {seconds} s"


def bad_node(study: AttackedStudy, chance: random.Random) -> str:
    """The controller dies; under its successor nothing starts on one node."""
    if study.cluster is None or not _kill_controller(study):
        return ""
    node = chance.choice(["n1", "n2"])
    study.start("--slurm.setup", f'test "$SLURMD_NODENAME" != {node}')
    return f"setup fails on {node}"


def stripped_environment(study: AttackedStudy, chance: random.Random) -> str:
    """The controller dies; its successor's jobs get no variable of the launch, and run a copy of the code."""
    if study.cluster is None or not _kill_controller(study):
        return ""
    study.start("--slurm.extra", "export=NONE", "--snapshot")
    return "jobs get export=NONE"


def hanging_queue(study: AttackedStudy, chance: random.Random) -> str:
    """The controller dies; each squeue of its successor takes many seconds."""
    real = shutil.which("squeue")
    if study.cluster is None or real is None or not _kill_controller(study):
        return ""
    folder, seconds = study.folder / "hanging", chance.randint(6, 15)
    folder.mkdir(exist_ok=True)
    (folder / "squeue").write_text(f'#!/bin/sh\nsleep {seconds}\nexec {real} "$@"\n')
    (folder / "squeue").chmod(0o755)
    study.start(PATH=f"{folder}{os.pathsep}{os.environ['PATH']}")
    return f"each squeue takes {seconds} s"


def _kill_controller(study: AttackedStudy) -> bool:
    controller = study.controller()
    if controller is None:
        return False
    controller.kill()
    controller.wait()
    return True
