"""What training in bfloat16 does to a run: the curves of one configuration in fp32 and bf16, and the time of a step.

`python benchmarks/precision.py --shapes mosei` on a GPU; `--shapes small` for a CPU. Synthetic data, one seed: a
teacher is trained in both precisions, then a student of each method in both, taught by the teacher of fp32. A step is
timed from the end of one to the end of the next, the device having finished; the median leaves out validation.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from training_work import SHAPES, Shape

from mmkd.config import DataSource, Distillation, StudentConfig, TeacherConfig, Training, identity
from mmkd.data.synthetic import make_synthetic
from mmkd.distillation import complete
from mmkd.result_file import Result, read_result
from mmkd.rundir import Root, TrialDir
from mmkd.trial import run_trial

METHODS = {
    "no_kd": Distillation(method="no_kd"),
    "edam": Distillation(method="edam"),
    "crd": Distillation(method="crd", level="attention_maps"),
}
PRECISIONS = ("fp32", "bf16")
CURVES = ("train_classification", "train_distillation", "valid_loss", "valid_accuracy")


def run(config: TeacherConfig | StudentConfig, directory: TrialDir) -> tuple[Result, float]:
    """The result of a run, and the median of its steps' times in ms."""
    ends: list[float] = []

    def note(*_: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    directory.path.mkdir(parents=True)
    hook = register_optimizer_step_post_hook(note)
    run_trial(config, directory.path)
    hook.remove()
    return read_result(directory.result), 1e3 * median(end - start for start, end in pairwise(ends))


def show(name: str, found: dict[str, tuple[Result, float]]) -> None:
    """Print the curves of both precisions side by side, and the times of a step."""
    results = [result for result, _ in found.values()]
    curves = [curve for curve in CURVES if all(curve in result.curves for result in results)]
    print(f"\n{name}: a step takes " + ", ".join(f"{ms:.1f} ms in {p}" for p, (_, ms) in found.items()))
    print("\n| epoch | " + " | ".join(f"{curve}: {' / '.join(found)}" for curve in curves) + " |")
    print("| --- " * (1 + len(curves)) + "|")
    for epoch in range(min(result.epochs for result in results)):
        cells = [" / ".join(f"{result.curves[curve][epoch]:.4f}" for result in results) for curve in curves]
        print(f"| {epoch + 1} | " + " | ".join(cells) + " |", flush=True)


def common(shape: Shape, path: Path, fingerprint: str, options: argparse.Namespace, precision: str) -> dict[str, Any]:
    """What the configurations of teacher and student share."""
    training = Training(epochs=options.epochs, batch_size=options.batch, precision=precision)  # type: ignore[arg-type]
    data = DataSource(path=str(path), fingerprint=fingerprint)
    return {"data": data, "training": training, "seed": 0, "device": options.device, "threads": options.threads}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", choices=SHAPES, default="small")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    options = parser.parse_args()
    shape = SHAPES[options.shapes]
    with tempfile.TemporaryDirectory() as folder:
        root, path = Root(Path(folder)), Path(folder) / "data.h5"
        fingerprint = make_synthetic(path, shape.data)
        shared = {p: common(shape, path, fingerprint, options, p) for p in PRECISIONS}
        teachers = {p: TeacherConfig(network=shape.teacher, **shared[p]) for p in PRECISIONS}
        show("teacher", {p: run(teacher, root.teacher(identity(teacher))) for p, teacher in teachers.items()})
        for number, method in enumerate(options.methods):
            students = {p: student(method, shape, teachers["fp32"], shared[p]) for p in PRECISIONS}
            directories = {p: root.row(f"{method}-{p}", f"{number:08}").trial(0) for p in PRECISIONS}
            show(method, {p: run(config, directories[p]) for p, config in students.items()})
    return 0


def student(method: str, shape: Shape, teacher: TeacherConfig, shared: dict[str, Any]) -> StudentConfig:
    """A student, with its teacher if the method needs one."""
    chosen: dict[str, Any] = {"distillation": complete(METHODS[method]), "primary": shape.primary, "pairing": "others"}
    return StudentConfig(network=shape.student, teacher=None if method == "no_kd" else teacher, **chosen, **shared)


if __name__ == "__main__":
    sys.exit(main())
