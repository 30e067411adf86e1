"""`python -m analysis efficiency`: inference cost of teacher and students on this machine."""

from __future__ import annotations

import argparse

from analysis.commands.options import Subparsers, load_study, new_command, output_format, tell_measured, write_out
from analysis.tables.formats import FORMATS
from mmkd.errors import UserError


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = new_command(
        subparsers,
        "efficiency",
        run,
        FORMATS,
        help="measure parameters, FLOPs, latency and memory of teacher and students",
        description="Measure parameters, FLOPs, latency and peak memory of a study's networks on this machine. "
        "Run nothing else on it meanwhile.",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto, a GPU if there is one"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's default)")
    parser.add_argument(
        "--seconds", type=float, default=2.0, metavar="S", help="minimum time for each latency (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> int:
    """Measure, and print or write the costs."""
    import torch

    from analysis.networks.inference_table import efficiency, write

    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads}: 1 or more")
    if not 0 < options.seconds < float("inf"):
        raise UserError(f"--seconds {options.seconds:g}: a number above 0")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine shows no CUDA device; use auto or cpu")
    style = output_format(options, FORMATS)
    device = None if options.device == "auto" else torch.device(options.device)
    found = efficiency(*load_study(options), device, options.threads, options.seconds, tell_measured)
    write_out(write(found, style), options.out)
    return 0
