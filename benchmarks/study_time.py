"""Time of a whole launch with workers and with `--no-workers`, in turns: `python benchmarks/study_time.py`.

Other options than those below are the launch's (default: `--study crd_attention`, README's main job). Each launch has a
fresh root on this machine. Processor time is that of the controller, the worker and all trials.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from mmkd.files import write_json

HERE = Path(__file__).parents[1]
SET_CHILD_SUBREAPER = 36
"""Of prctl(2): processes whose parent has ended become our children."""


def run(checkout: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a launch of the code in `checkout` in a fresh root.

    Raises:
        SystemExit: it failed; the folder with its log is kept.
    """
    folder, load = Path(tempfile.mkdtemp(prefix="mmkd-study-")), os.getloadavg()[0]
    root, log = folder / "runs", folder / "log.txt"
    command = (sys.executable, str(checkout / "sweeps/launch.py"), *arguments, "--root", str(root))
    before, began = _cpu_of_children(), time.perf_counter()
    with log.open("w") as output:
        # Trials run `python -m mmkd.trial`, which would else take the code of the current directory.
        environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1"}
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"the launch ended with {done.returncode}: {log}")
    with suppress(ChildProcessError):
        while True:
            os.wait()  # a worker ends a moment after its controller
    trials, cpu = len(list(root.rglob("result.h5"))), _cpu_of_children() - before
    shutil.rmtree(folder)
    loads = [round(load, 1), round(os.getloadavg()[0], 1)]
    return {"seconds": seconds, "CPU seconds": cpu, "trials": trials, "load": loads}


def _cpu_of_children() -> float:
    """Processor seconds of all ended children and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(runs: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the medians and each launch's seconds."""
    table = Table("", "seconds", "ratio", "CPU seconds", "ratio", "trials per hour", "each, s", "load", box=None)
    first: list[float] = []
    for way in dict.fromkeys(run["way"] for run in runs):
        found = [run for run in runs if run["way"] == way]
        medians = [median(run[what] for run in found) for what in ("seconds", "CPU seconds")]
        first = first or medians
        ratios = [value / base for value, base in zip(medians, first, strict=True)]
        rate = 3600 * found[0]["trials"] / medians[0]
        cells = [
            cell for value, ratio in zip(medians, ratios, strict=True) for cell in (f"{value:.1f}", f"{ratio:.2f}")
        ]
        each = ", ".join(f"{run['seconds']:.0f}" for run in found)
        loads = [load for run in found for load in run["load"]]
        table.add_row(way, *cells, f"{rate:,.0f}", each, f"{min(loads):g} to {max(loads):g}")
    console.print(table)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="launches of each way (%(default)s)")
    parser.add_argument("--against", type=Path, metavar="DIR", help="also an earlier checkout of mmkd, as the base")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all launches there after each")
    options, rest = parser.parse_known_args()
    arguments = ["--cluster", "local", *(rest or ["--study", "crd_attention"])]
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ways = {"--no-workers": (HERE, [*arguments, "--no-workers"]), "workers": (HERE, arguments)}
    if options.against:
        ways = {f"{options.against}": (options.against.absolute(), arguments), **ways}
    runs: list[dict[str, Any]] = []
    for _ in range(options.repeat):
        for way, (checkout, given) in ways.items():
            runs.append({"way": way, **run(checkout, given)})
            print(runs[-1], file=sys.stderr, flush=True)
            if options.json:
                write_json(options.json, runs)
    show(runs, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
