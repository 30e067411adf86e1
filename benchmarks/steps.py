"""Training steps of this checkout beside another's, in turns: `python benchmarks/steps.py --against PATH`.

Each checkout runs in a process of its own, with its own mmkd and this benchmark. A case's two processes take turns of
some steps, so that a machine that becomes slower or busier does so for both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from training_measures import Counter
from training_work import ROWS, SHAPES, make_data, make_lesson, make_step, profile

CASES = SHAPES | {"utd_mhad": profile("utd_mhad", "utd_mhad"), "synthetic": profile("synthetic", "small")}
HERE = Path(__file__).parents[1]


def serve(shape: str, row: str, folder: Path) -> None:
    """Print the number of a step's operator calls; then run and time as many steps as each line of stdin asks for."""
    torch.set_num_threads(1)
    # As a trial does, see mmkd.training.lesson.prepare_torch.
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    case = CASES[shape]
    lesson = make_lesson(ROWS[row], case, folder / "data.h5", torch.device("cpu"))
    step = make_step(ROWS[row], "mmkd", lesson, folder, case.training.batch_size, case.training)
    for _ in range(3):
        step()
    with Counter() as counter:
        step()
    print(counter.calls, flush=True)
    for line in sys.stdin:
        began = time.process_time()
        for _ in range(int(line)):
            step()
        print(1e3 * (time.process_time() - began) / int(line), flush=True)


def start(checkout: Path, shape: str, row: str, folder: Path) -> subprocess.Popen[str]:
    """A process that serves steps of a checkout's mmkd."""
    command = [sys.executable, __file__, "--serve", shape, row, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def ask(server: subprocess.Popen[str], line: str = "") -> float:
    """The number that the server answers to a line."""
    assert server.stdin is not None
    assert server.stdout is not None
    if line:
        server.stdin.write(f"{line}\n")
        server.stdin.flush()
    answer = server.stdout.readline()
    if not answer:
        raise SystemExit(f"{' '.join(map(str, server.args))}: ended with {server.wait()}")  # type: ignore[arg-type]
    return float(answer)


def compare(options: argparse.Namespace, shape: str, row: str, folder: Path) -> tuple[list[float], list[float], str]:
    """Milliseconds of CPU per step, one value per turn, of the other checkout and of this one; and operator calls."""
    servers = [start(checkout, shape, row, folder) for checkout in (options.against, HERE)]
    calls = " / ".join(f"{ask(server):,.0f}" for server in servers)
    turns = [[ask(server, str(options.steps)) for server in servers] for _ in range(options.turns)]
    for server in servers:
        server.communicate()
    before, after = (list(times) for times in zip(*turns, strict=True))
    return before, after, calls


def lines(options: argparse.Namespace, folder: Path) -> Iterator[list[str]]:
    """A line of the table per case."""
    for shape in options.shapes:
        make_data(folder / "data.h5", CASES[shape], 4 * CASES[shape].training.batch_size)
        for row in options.rows:
            before, after, calls = compare(options, shape, row, folder)
            ratio = statistics.median(b / a for b, a in zip(before, after, strict=True))
            times = (f"{statistics.median(each):.2f}" for each in (before, after))
            yield [shape, row, *times, f"{ratio:.2f}", calls]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, metavar="PATH", help="the other checkout")
    parser.add_argument("--shapes", nargs="+", choices=CASES, default=["utd_mhad", "synthetic"])
    trained = [name for name, row in ROWS.items() if not row.inference]
    parser.add_argument("--rows", nargs="+", choices=trained, default=trained, metavar="ROW", help=", ".join(trained))
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--steps", type=int, default=10, help="per turn")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        shape, row, folder = options.serve
        serve(shape, row, Path(folder))
        return
    if options.against is None:
        parser.error("give --against")
    table = Table("shape", "row", "before, ms", "after, ms", "ratio", "operator calls")
    with tempfile.TemporaryDirectory() as folder:
        for line in lines(options, Path(folder)):
            print(" | ".join(line), file=sys.stderr, flush=True)
            table.add_row(*line)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
