"""`python -m mmkd.export`: export a finished student to one self-contained file, with a model card beside it."""

from __future__ import annotations

import argparse
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor

from mmkd.command import Parser, add_force, run_command
from mmkd.errors import UserError
from mmkd.files import check_output, write_atomically, write_text
from mmkd.find_trial import add_trial, find_student
from mmkd.records import WinnerRecord, find_record
from mmkd.result_file import ResultError, Status, read_result
from mmkd.rundir import RowDir
from mmkd.steps import show_steps
from mmkd.training.stored_logits import TOLERANCE, Model, check_logits
from mmkd.training.trained_network import TrainedStudent, load_student

ENDINGS = (".pt2", ".onnx")
ONNX_HINT = "needs the extra onnx: pip install 'mmkd[onnx]'"


def export_student(student: TrainedStudent, path: Path, tell: Callable[[str], object] = lambda what: None) -> str:
    """Export the student, check what was exported against the trial's stored logits, and write it to `path`.

    The program takes raw features (B, T, F) and lengths (B,) int64, for any B, and returns logits (B, C);
    standardisation is inside. See `RawStudent`.

    Args:
        student: the trial's student.
        path: ends in .pt2 for a `torch.export` program, in .onnx for ONNX.
        tell: called with each next step.

    Returns:
        How the exported program agrees with the stored logits, in words.

    Raises:
        UserError: its logits differ from the stored ones, or ONNX is not installed.
        OSError: the file cannot be written.
    """
    tell("tracing the model")
    content, model = (_export_onnx if path.suffix == ".onnx" else _export_torch)(student)
    agreement = check_logits(student, model, "the exported model", tell)
    for batch in (1, 7):  # sizes that the stored part may not have
        features = student.model.mean + student.model.std * torch.randn(batch, student.steps, student.features)
        lengths = torch.arange(batch) % student.steps + 1
        with torch.no_grad():
            ours, theirs = student.model(features, lengths), model(features, lengths)
        if not (ours - theirs).abs().max() <= TOLERANCE * max(1.0, float(ours.abs().max())):
            raise UserError(f"{path}: not written, the exported model differs from the original in a batch of {batch}")
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return agreement


def _export_torch(student: TrainedStudent) -> tuple[bytes, Model]:
    batch = torch.export.Dim("batch")
    program = torch.export.export(student.model, _example(student), dynamic_shapes=({0: batch}, {0: batch}))
    content = io.BytesIO()  # torch's writer ends the process if the disk is full
    torch.export.save(program, content)
    content.seek(0)
    return content.getvalue(), torch.export.load(content).module()


def _export_onnx(student: TrainedStudent) -> tuple[bytes, Model]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter imports it)
    except ImportError as error:
        raise UserError(f"export to .onnx {ONNX_HINT} ({error})") from None
    batch = torch.export.Dim("batch")
    with _silent_exporter():
        program = torch.onnx.export(
            student.model,
            _example(student),
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: batch}, {0: batch}),
            input_names=["features", "lengths"],
            output_names=["logits"],
        )
    assert program is not None
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(features: Tensor, lengths: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"features": features.numpy(), "lengths": lengths.numpy()})
        return torch.from_numpy(logits)

    return content, run


@contextmanager
def _silent_exporter() -> Iterator[None]:
    """Silence what torch's exporter says about itself and about packages that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _example(student: TrainedStudent) -> tuple[Tensor, Tensor]:
    """Four recordings to trace with."""
    return torch.randn(4, student.steps, student.features), torch.full((4,), student.steps)


def model_card(student: TrainedStudent, directory: Path, agreement: str) -> str:
    """Model card in Markdown: data, row, metrics and their spread over the row's seeds."""
    config, result = student.config, student.result
    distillation = config.distillation
    teacher = "none" if config.teacher is None else f"{config.teacher.branch or 'complete'}, seed {config.teacher.seed}"
    lines = [
        f"# Student of {config.primary}",
        "",
        f"- Trial: `{directory.name}` of row `{directory.parent.parent.name}`, seed {config.seed}",
        f"- Data: fingerprint `{config.data.fingerprint}`",
        f"- Input `features` (B, {student.steps}, {student.features}) float32: raw {config.primary}, "
        f"{student.steps} steps of {student.features} features, padded in front",
        "- Input `lengths` (B,) int64: real steps at the end of each recording; what stands before them is ignored",
        f"- Output: logits of {len(student.classes)} classes: {', '.join(student.classes)}",
        f"- Method: {distillation.method}, level {distillation.level or '-'}, pairing {config.pairing}",
        f"- Teacher: {teacher}",
        f"- alpha {distillation.alpha:g}, beta {distillation.beta:g}, temperature {distillation.temperature:g}, "
        f"learning rate {config.training.learning_rate:g}",
        f"- Parameters: {result.parameters:,}",
        f"- Check: {agreement}",
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
    check_output(options.out, f"--out {options.out}", ENDINGS, force=options.force)
    check_output(card, f"--out {options.out}: its model card {card}", force=options.force)
    trial = find_student(options)
    with show_steps() as tell:
        student = load_student(trial.path)
        agreement = export_student(student, options.out, tell)
    write_text(card, model_card(student, trial.path.absolute(), agreement))
    print(f"wrote {options.out} and {card} ({agreement})")
    return 0


def main(arguments: list[str] | None = None, prog: str = "python -m mmkd.export") -> int:
    """The command."""
    parser = Parser(
        prog=prog,
        description="Export a trained student as a torch.export program or to ONNX. The program includes "
        "standardisation and takes any batch size. Its inputs are raw features (B, T, F) and lengths (B,). NAME.pt2 or "
        "NAME.onnx, and its model card NAME.md, are written only if the program reproduces the logits that the trial "
        "stored. Load a .pt2 file with torch.export.load(FILE).module(), and an .onnx file with onnxruntime.",
    )
    add_trial(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write, .pt2 or .onnx")
    add_force(parser)
    return run_command(parser, export, arguments)


if __name__ == "__main__":
    sys.exit(main())
