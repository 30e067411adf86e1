"""Measure the memory and time of importing a pickle of CMU-MOSEI's size: `python benchmarks/import_memory.py`.

Writes a pickle in MulT's layout, with audio (23,000, 500, 74) in float32 by default, imports it in a process of its
own, and prints that process's largest memory beside the file's size.
"""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SHARES = {"train": 0.71, "valid": 0.08, "test": 0.21}


def write_pickle(path: Path, samples: int, steps: int, features: int, dtype: str, protocol: int, behind: bool) -> None:
    """Write a pickle in MulT's layout, or with padding `behind` in MMSA's, one split at a time in memory."""
    rng = np.random.default_rng(0)
    data: dict[str, dict[str, Any]] = {}
    for name, share in SHARES.items():
        n = int(share * samples)
        audio = rng.standard_normal((n, steps, features), np.float32).astype(dtype)
        lengths = rng.integers(steps // 2, steps + 1, n)
        outside = np.arange(steps) >= lengths[:, None]
        audio[outside if behind else outside[:, ::-1]] = 0
        scores = rng.uniform(-3, 3, n).astype("f4")
        part = {"vision": np.ones((n, 2, 4), dtype), "text": np.ones((n, 3, 300), "f4"), "audio": audio}
        ids = np.array([f"{name}{i // 10}$_${i % 10}" for i in range(n)])
        labels = (
            {"regression_labels": scores, "audio_lengths": lengths} if behind else {"labels": scores[:, None, None]}
        )
        data[name] = {**part, **labels, "id": ids}
    with path.open("wb") as file:
        pickle.dump(data, file, protocol)


def main() -> None:
    """Print the figures of one import."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=23000)
    parser.add_argument("--shape", type=int, nargs=2, default=(500, 74), metavar=("STEPS", "FEATURES"))
    parser.add_argument("--dtype", choices=("f4", "f8"), default="f4")
    parser.add_argument("--protocol", type=int, default=4)
    parser.add_argument("--behind", action="store_true", help="MMSA's layout: lengths, and padding behind")
    parser.add_argument("--folder", type=Path, help="where the files are written (default: the temporary directory)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source, out = Path(folder) / "data.pkl", Path(folder) / "data.h5"
        child = os.fork()  # what it allocates must not count as the import's
        if child == 0:
            write_pickle(source, options.samples, *options.shape, options.dtype, options.protocol, options.behind)
            os._exit(0)
        os.waitpid(child, 0)
        size = source.stat().st_size
        importer = "mmsa" if options.behind else "mult"
        command = [sys.executable, "-m", "mmkd.data", "import", importer, str(source), str(out), "--dataset", "mosei"]
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        steps = process.stderr.read().splitlines()
        _, status, used = os.wait4(process.pid, 0)
        elapsed = time.monotonic() - started
        if status:
            sys.exit(f"the import failed: {steps}")
        peak = used.ru_maxrss * 1024
        written = out.stat().st_size
    print(f"file {size / 1e9:.2f} GB, protocol {options.protocol}, {options.dtype}; data file {written / 1e9:.2f} GB")
    print(f"peak memory {peak / 1e9:.2f} GB, {peak / size:.2f} times the file's size")
    print(f"{elapsed:.0f} s by the clock, {used.ru_utime + used.ru_stime:.0f} s of processor time")
    print(f"progress: {len(steps)} lines, such as {steps[:1]}")


if __name__ == "__main__":
    main()
