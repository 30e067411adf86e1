"""Training steps and inference by mmkd beside the straightforward way: `python benchmarks/training.py`.

Each measurement is a process of its own, so that its peak memory is its own. The rows' loss and gradient are compared
between the two ways, on the same networks without dropout, before they are timed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from training_measures import ceilings, measure, memory
from training_work import ROWS, SHAPES, agreement, make_data, make_lesson, make_step

from mmkd.files import write_json

WAYS = ("plain", "mmkd")
AGREEMENT = 1e-3
"""Largest relative difference, in float32, of loss and gradient between the two ways."""


def one(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The measurement that a child process was started for."""
    torch.set_num_threads(options.threads)
    # As a trial does, see mmkd.training.lesson.prepare_torch.
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    device = torch.device(options.device)
    if options.way == "ceilings":
        return ceilings(device)
    row, shape, path = ROWS[options.row], SHAPES[options.shape], folder / "data.h5"
    if options.way == "agreement":
        return agreement(row, make_lesson(row, shape, path, device, dropout=False), folder, 2)
    lesson = make_lesson(row, shape, path, device)
    before = memory(device)
    return asdict(measure(make_step(row, options.way, lesson, folder, options.batch), device, options.steps, before))


def child(folder: Path, options: argparse.Namespace, way: str, row: str, shape: str, batch: int) -> dict[str, Any]:
    """`one` in a process of its own; what went wrong under `error`."""
    chosen = ["--way", way, "--row", row, "--shape", shape, "--batch", str(batch), "--folder", str(folder)]
    common = ["--threads", str(options.threads), "--steps", str(options.steps), "--device", options.device]
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    done = subprocess.run(
        [sys.executable, __file__, *chosen, *common], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(folder: Path, options: argparse.Namespace, shape: str, batch: int) -> Iterator[dict[str, Any]]:
    """All rows of one shape and batch size; none is begun after `--minutes`."""
    make_data(folder / "data.h5", SHAPES[shape], max(batch, options.samples))
    for row in options.rows:
        if time.monotonic() > options.end:
            return
        line: dict[str, Any] = {"shape": shape, "batch": batch, "row": row, "load": os.getloadavg()[0]}
        if options.agree:
            line["agreement"] = child(folder, options, "agreement", row, shape, batch)
        for way in options.ways:
            line[way] = child(folder, options, way, row, shape, batch)
        yield line


def summary(line: dict[str, Any], most: dict[str, float]) -> str:
    """One line, while the run goes on."""
    return " | ".join([f"{line['shape']} {line['batch']} {line['row']}", *cells(line, most)])


def cells(line: dict[str, Any], most: dict[str, float]) -> list[str]:
    """A row's figures as the table shows them: rates are mmkd's.

    `of CPU` is the ratio of processor times, which other work on the machine disturbs less than the clock's.
    """
    plain, ours = line.get("plain", {}), line.get("mmkd", {})
    both = "median_ms" in plain and "median_ms" in ours
    out = [f"{w['median_ms']:,.1f}" if "median_ms" in w else w.get("error", "-")[:40] for w in (plain, ours)]
    out += [f"{plain[key] / ours[key]:.1f}" if both else "-" for key in ("median_ms", "processor_ms")]
    out += [f"{w['peak_mib']:,.0f}" if "peak_mib" in w else "-" for w in (plain, ours)]
    out.append(f"{ours['peak_mib'] / plain['peak_mib']:.2f}" if both and plain["peak_mib"] > 0 else "-")
    if "median_ms" not in ours:
        return [*out, "-", "-", "-", "-"]
    seconds = ours["median_ms"] / 1e3
    flops, traffic = ours["flops"] / seconds, ours["traffic"] / seconds
    out.append(f"{line['batch'] / seconds:,.0f}")
    out.append(f"{flops / 1e9:,.1f} ({flops / most['flops']:.0%})")
    out.append(f"{traffic / 1e9:,.1f} ({traffic / most['bytes']:.0%})")
    differences = line.get("agreement", {})
    out.append(differences.get("error", "")[:40] or (f"{max(differences.values()):.0e}" if differences else "-"))
    return out


def agrees(line: dict[str, Any]) -> bool:
    """Whether the two ways were compared and differ by no more than rounding, or were not to be compared."""
    differences = line.get("agreement", {})
    return "error" not in differences and all(value <= AGREEMENT for value in differences.values())


def show(lines: list[Any], most: dict[str, float]) -> None:
    """The table."""
    heads = ["plain ms", "mmkd ms", "ratio", "of CPU", "plain MiB", "mmkd MiB", "part"]
    heads += ["samples/s", "GFLOP/s", "GB/s", "differ by"]
    table = Table(*["shape", "batch", "row"], *heads)
    for line in lines:
        table.add_row(line["shape"], str(line["batch"]), line["row"], *cells(line, most))
    Console(width=160).print(table)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["small", "mosei"])
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="plain needs 20 GB for mosei at batch 64")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a measurement, after two others")
    parser.add_argument("--samples", type=int, default=64, help="in train")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--no-agreement", dest="agree", action="store_false", help="do not compare losses and gradients"
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no row after so long")
    parser.add_argument("--out", type=Path, default=Path("training.json"))
    for name in ("--way", "--row", "--shape", "--folder"):  # of a child process
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(one(options, Path(options.folder))))
        return 0
    options.end = time.monotonic() + 60 * options.minutes
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        most = child(Path(folder), options, "ceilings", "no_kd", "small", 1)
        write_json(options.out, {**facts(options), "ceilings": most, "rows": lines})
        for shape, batch in itertools.product(options.shapes, options.batches):
            for line in compare(Path(folder), options, shape, batch):
                lines.append(line)
                print(summary(line, most), file=sys.stderr, flush=True)
                # After each row: a run that is cut short leaves what it has.
                write_json(options.out, {**facts(options), "ceilings": most, "rows": lines})
    show(lines, most)
    far = [line["row"] for line in lines if not agrees(line)]
    if far:
        print(f"the two ways differ by more than {AGREEMENT:g} in: {', '.join(far)}", file=sys.stderr)
    left = len(options.shapes) * len(options.batches) * len(options.rows) - len(lines)
    if left:
        print(f"{left} rows were left out for --minutes {options.minutes:g}", file=sys.stderr)
    return 1 if far else 0


def cpu_name() -> str:
    """The processor's model, or its architecture where none is told."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def facts(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on besides the code."""
    cuda = options.device == "cuda"
    return {
        "machine": torch.cuda.get_device_name() if cuda else cpu_name(),
        "cpus": os.cpu_count(),
        "threads": options.threads,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python benchmarks/training.py", *sys.argv[1:]]),
    }


if __name__ == "__main__":
    sys.exit(main())
