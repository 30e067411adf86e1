"""`python -m mmkd.export`: export a finished student to one self-contained file, with a model card beside it."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import torch

from mmkd.command import Parser, add_force, run_command
from mmkd.errors import UserError
from mmkd.files import check_output, write_atomically, write_text
from mmkd.find_trial import add_trial, find_student
from mmkd.metrics import softmax
from mmkd.records import WinnerRecord, find_record
from mmkd.result_file import ResultError, Status, read_result
from mmkd.rundir import RowDir
from mmkd.steps import show_steps
from mmkd.training.trained_network import TrainedStudent, load_student

TOLERANCE = 1e-5
"""Largest difference of a probability between the exported and the original model."""


def export_student(student: TrainedStudent, path: Path, tell: Callable[[str], object] = lambda what: None) -> float:
    """Check the model as a `torch.export` program and write it; return the largest difference of a probability.

    The program takes raw features (B, T, F) for any B and returns logits (B, C); standardisation is inside.

    Raises:
        UserError: the exported model differs from the original.
        OSError: the file cannot be written.
    """
    tell("tracing the model")
    example = torch.randn(4, student.steps, student.features)
    program = torch.export.export(student.model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    content = io.BytesIO()  # torch's writer ends the process if the disk is full
    torch.export.save(program, content)
    tell("comparing the exported model with the original")
    content.seek(0)
    loaded = torch.export.load(content).module()
    worst = 0.0
    for batch in (1, 7):
        features = student.model.mean + student.model.std * torch.randn(batch, student.steps, student.features)
        with torch.no_grad():
            ours, theirs = student.model(features).numpy(), loaded(features).numpy()
        worst = max(worst, float(abs(softmax(ours) - softmax(theirs)).max()))
    if worst > TOLERANCE:
        raise UserError(f"{path}: not written, the exported model differs by {worst:.1e} in a probability")
    write_atomically(path, lambda temporary: temporary.write_bytes(content.getbuffer()))
    return worst


def model_card(student: TrainedStudent, directory: Path, worst: float) -> str:
    """Model card in Markdown: data, row, metrics and their spread over the row's seeds."""
    config, result = student.config, student.result
    distillation = config.distillation
    teacher = "none" if config.teacher is None else f"{config.teacher.branch or 'complete'}, seed {config.teacher.seed}"
    lines = [
        f"# Student of {config.primary}",
        "",
        f"- Trial: `{directory.name}` of row `{directory.parent.parent.name}`, seed {config.seed}",
        f"- Data: fingerprint `{config.data.fingerprint}`",
        f"- Input: raw {config.primary}, {student.steps} steps of {student.features} features, padded with zeros",
        f"- Output: logits of {len(student.classes)} classes: {', '.join(student.classes)}",
        f"- Method: {distillation.method}, level {distillation.level or '-'}, pairing {config.pairing}",
        f"- Teacher: {teacher}",
        f"- alpha {distillation.alpha:g}, beta {distillation.beta:g}, temperature {distillation.temperature:g}, "
        f"learning rate {config.training.learning_rate:g}",
        f"- Parameters: {result.parameters:,}",
        f"- Exported and original differ by at most {worst:.1e} in a probability (random inputs, batches of 1 and 7)",
        "",
        "| split | accuracy | weighted F1 | macro F1 | majority baseline |",
        "| --- | --- | --- | --- | --- |",
    ]
    for split, metrics in result.metrics.items():
        shown = ("accuracy", "weighted_f1", "macro_f1", "majority_accuracy")
        lines.append(f"| {split} | " + " | ".join(f"{metrics[name]:.4f}" for name in shown) + " |")
    lines += ["", *_spread(directory)]
    return "\n".join(lines) + "\n"


def _spread(directory: Path) -> list[str]:
    """Test accuracy of the row over the seeds of its final runs, if this is one of them."""
    row = RowDir(directory.absolute().parent.parent)
    winner = find_record(row.winner, WinnerRecord)
    if winner is None or directory.name not in winner.confirm.values():
        return ["This is not a final run: its metrics are those that it was selected by, and are optimistic."]
    accuracies = []
    for name in winner.confirm.values():
        try:
            result = read_result(row.path / "confirm" / name / "result.h5", predictions=False)
        except (FileNotFoundError, ResultError):
            continue
        if result.status is Status.COMPLETE:
            accuracies.append(result.metrics["test"]["accuracy"])
    spread = f", standard deviation {stdev(accuracies):.4f}" if len(accuracies) > 1 else ""
    return [f"Test accuracy of the row over {len(accuracies)} of {len(winner.confirm)} seeds: "
            f"mean {mean(accuracies):.4f}{spread}. This model is one of them, not the best of them."]  # fmt: skip


def export(options: argparse.Namespace) -> int:
    """Write the exported model and its card."""
    card = options.out.with_suffix(".md")
    check_output(options.out, f"--out {options.out}", (".pt2",), force=options.force)
    check_output(card, f"--out {options.out}: its model card {card}", force=options.force)
    trial = find_student(options)
    with show_steps() as tell:
        student = load_student(trial.path)
        worst = export_student(student, options.out, tell)
    write_text(card, model_card(student, trial.path.absolute(), worst))
    print(f"wrote {options.out} and {card}")
    return 0


def main(arguments: list[str] | None = None, prog: str = "python -m mmkd.export") -> int:
    """The command."""
    parser = Parser(
        prog=prog,
        description="Export a trained student with torch.export, including standardisation and for any batch size. "
        "Checks the result against the original and writes a model card FILE.md beside it. Load the file with "
        "torch.export.load(FILE).module().",
    )
    add_trial(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.pt2", help="the file to write")
    add_force(parser)
    return run_command(parser, export, arguments)


if __name__ == "__main__":
    sys.exit(main())
