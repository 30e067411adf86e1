"""Monitor, analysis and controller under load: `python tests/campaigns/load.py --folder FOLDER [--trials 10000]`.

Five loads: 200 simulated jobs that end in the same second, again and again, while monitor and analysis read the same
root; 10,000 trial directories; a log of 1 GiB; a metrics file of a million lines; a finished study of 20 rows with 16
replicates. Each measurement is a separate process, imports included: seconds by the clock and of CPU, and its peak
memory. The first run makes FOLDER/runs (see analysis_scale.py), which takes minutes; it may then be run again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CODE = Path(__file__).resolve().parents[2]
BENCHMARKS = CODE / "benchmarks"
sys.path[:0] = [str(CODE), str(BENCHMARKS)]

from analysis_scale import STUDY_OPTIONS, make_root, remove_lines, study_file  # noqa: E402

from mmkd.attempts import record_run, record_submission  # noqa: E402
from mmkd.rundir import Root, TrialDir  # noqa: E402

AT_ONCE = 200
LOG_BYTES = 2**30
LINES = 1_000_000
LOADS = ["ends", "directories", "log", "metrics", "replicates"]
REPLICATED = [
    "--study", "table1", "--replicates", "16", "--splits", "group-folds", "--trials", "4", "--seeds", "1",
    "--sampler", "random", "--cluster", "local", "--device", "cpu",
]  # fmt: skip
"""Launch options of a study with many replicates; their groups come with the synthetic data."""


@dataclass(frozen=True)
class Spent:
    """What a process took: seconds by the clock and of CPU, and its peak memory in MiB; and what it printed."""

    seconds: float
    cpu: float
    mebibytes: float
    code: int
    said: str

    def __str__(self) -> str:
        failed = f"  FAILED ({self.code}): {self.said[-200:]}" if self.code else ""
        return f"{self.seconds:9.2f} s {self.cpu:9.2f} s of CPU {self.mebibytes:8.0f} MiB{failed}"


def spend(command: Sequence[object], **environment: str) -> Spent:
    """Run a command of ours to its end."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=CODE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    return Spent(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, process.returncode, said)


def readers(root: Path, study: str, *monitor: str) -> Iterator[tuple[str, list[object]]]:
    """The commands that read a root, and what they are called in the table."""
    yield "monitor", ["slurm/monitor.py", "--root", root, "--once", *monitor]
    yield "table, no cache", ["-m", "analysis", "table", "--root", root, "--study", study, "--no-cache"]
    yield "doctor, no cache", ["-m", "analysis", "doctor", "--root", root, "--no-cache"]


def show(what: str, spent: Spent, *, may_be_1: bool = False) -> None:
    """A line of the table; doctor's 1 says that something is wrong, and is no failure."""
    if may_be_1 and spent.code == 1 and "Traceback" not in spent.said:
        spent = Spent(spent.seconds, spent.cpu, spent.mebibytes, 0, spent.said)
    print(f"{what:54}{spent}", flush=True)


def ends_at_once(folder: Path, trials: int) -> None:
    """Waves of 200 jobs that end together, under a controller, while others read its root."""
    work = folder / "at-once"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    options = ["--trials", trials, "--slots", AT_ONCE, "--waiting", 0, "--failing", 0, "--poll", 1]
    command = [BENCHMARKS / "scaling.py", *options, "--shortest", 4, "--longest", 4]
    environment = {**os.environ, "TMPDIR": str(work)}
    controller = subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True, cwd=CODE, env=environment
    )
    reads: list[Spent] = []
    while controller.poll() is None:
        root = next(work.glob("mmkd-scaling-*/runs"), None)
        if root is None or not any(root.glob("rows/*/row.json")):
            time.sleep(0.2)
            continue
        for what, read in readers(root, "scaling"):
            if what == "monitor" or what.startswith("doctor"):  # the benchmark records no study
                reads.append(spend(read))
    assert controller.stdout is not None
    found = json.loads(controller.stdout.read())
    broken = [spent for spent in reads if "Traceback" in spent.said]
    print(
        f"{trials} trials, {AT_ONCE} ending at once: {found['seconds']} s (8 s for each two waves are sleep), "
        f"{found['not reported exactly once']} not reported exactly once, {found['controller CPU ms a trial']} ms of "
        f"CPU per trial, {found['peak memory MiB']} MiB; {len(reads)} readings meanwhile, {len(broken)} broken"
    )
    for spent in broken:
        print(spent.said[-500:])


def running_trial(folder: Path) -> TrialDir:
    """An unfinished trial beside 500 finished ones, in a root of its own."""
    root = Root(folder / "odd")
    shutil.rmtree(root.path, ignore_errors=True)
    make_root(root, 500, 2)
    row = root.rows()[0]
    directory = row.trial(10_000)
    directory.attempts.mkdir(parents=True)
    shutil.copy(row.trial(0).config, directory.config)
    directory.attempt.write_text("1\n")
    record_submission(directory, 1, backend="slurm", job="1", name="x", submitted=time.time() - 60)
    record_run(directory, 1, started=time.time() - 50, host="node1")
    return directory


def long_log(directory: TrialDir) -> None:
    """A log of 1 GiB, as a progress bar writes it: few line ends."""
    directory.log(1).parent.mkdir()
    bar = b"\r" + b"#" * 2**20
    with directory.log(1).open("wb") as file:
        while file.tell() < LOG_BYTES:
            file.write(bar)
        file.write(b"\nslurmstepd: error: Detected 1 oom_kill event in StepId=1.0\n")


def long_metrics(directory: TrialDir) -> None:
    """A million epochs."""
    with directory.metrics.open("w") as file:
        for epoch in range(1, LINES + 1):
            line = {"epoch": epoch, "valid_loss": 1 / epoch, "valid_accuracy": 0.5, "seconds": 0.1 * epoch, "time": 1.0}
            file.write(json.dumps(line) + "\n")


def many_replicates(root: Path) -> None:
    """320 replicates of rows, all done: 1,600 runs and 128 teachers that trained nothing."""
    launch = [*REPLICATED, "--root", root]
    if not (root / "studies").exists():
        show("20 rows of 16 replicates: made on a fake backend", spend(["tests/campaigns/untrained_root.py", *launch]))
    commands = {
        "--status": ["sweeps/launch.py", "--study", "table1", "--root", root, "--status"],
        "monitor": ["slurm/monitor.py", "--root", root, "--once"],
        "--dry-run": ["sweeps/launch.py", *launch, "--dry-run"],
        "table": ["-m", "analysis", "table", "--root", root, "--study", "table1"],
        "launched again": ["sweeps/launch.py", *launch],
        "launched again, no table": ["tests/campaigns/untrained_root.py", *launch],
    }
    for what, command in commands.items():
        show(f"20 rows of 16 replicates: {what}", spend(command))


def main() -> None:
    """Make the roots and print a line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=10_000, help="directories (default: %(default)s)")
    parser.add_argument("--ending", type=int, default=1_000, help="trials that end in waves of 200")
    parser.add_argument("--only", choices=LOADS, help="one of the loads")
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [options.only] if options.only else LOADS
    if "ends" in wanted:
        ends_at_once(folder, options.ending)
    if "directories" in wanted:
        root = folder / "runs"
        if not (root / "studies").exists():
            make_root(Root(root), options.trials, 100)
        count = f"{options.trials:,} directories"
        for what, command in list(readers(root, "scale"))[1:]:
            show(f"{count}: {what}", spend(command), may_be_1=True)
        remove_lines(Root(root))
        launch = ["sweeps/launch.py", "--root", root]
        table = ["-m", "analysis", "table", "--root", root, "--study", "scale"]
        listed: dict[str, list[object]] = {
            "monitor, without finished.jsonl": ["slurm/monitor.py", "--root", root, "--once"],
            "table, writes finished.jsonl": table,
            "table": table,
            "monitor": ["slurm/monitor.py", "--root", root, "--once"],
            "--status": [*launch, "--study", "scale", "--status"],
            "relaunch of the finished study": [*launch, "--study", study_file(Root(root)), *STUDY_OPTIONS],
        }
        for what, command in listed.items():
            show(f"{count}: {what}", spend(command))
    if "replicates" in wanted:
        many_replicates(folder / "replicates")
    for load, make in (("log", long_log), ("metrics", long_metrics)):
        if load not in wanted:
            continue
        directory = running_trial(folder)
        make(directory)
        label = {"log": "a log of 1 GiB", "metrics": "a million lines of metrics"}[load]
        log = f"{re.sub('^rows/', '', str(directory.path.relative_to(folder / 'odd')))}"
        for what, command in readers(folder / "odd", "scale", "--log", log):
            show(f"{label} (1 of 501 trials): {what}", spend(command), may_be_1=True)
        shutil.rmtree(folder / "odd")


if __name__ == "__main__":
    main()
