"""Measure the inference cost of networks: parameters, FLOPs, latency, memory, on this machine."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from mmkd.models.network import Network, count_parameters

BATCHES, ROUNDS = (1, 64), 5
Shapes = Mapping[str, tuple[int, int]]
"""Modality -> steps and features of a sequence."""


@dataclass(frozen=True)
class Machine:
    """The machine of a measurement: name of the CPU or GPU, CPU threads, number type, version of torch."""

    device: str
    kind: Literal["cpu", "cuda"]
    threads: int
    dtype: str
    torch: str


@dataclass(frozen=True)
class Latency:
    """Seconds of one forward pass of a batch: median and interquartile range of `blocks` timed blocks."""

    median: float
    iqr: float
    blocks: int


@dataclass(frozen=True)
class Cost:
    """The cost of a network in evaluation mode.

    `flops` are of one sample: two for each multiplication and addition of matrix products and convolutions, which is
    nearly all there is; `latency` and `memory` are by batch size. `memory` in bytes is what one forward pass holds at
    its peak: weights, inputs and all that it computes, as torch's allocator counts them.
    """

    parameters: int
    flops: int
    latency: Mapping[int, Latency]
    memory: Mapping[int, int]


def describe_machine(device: torch.device, threads: int) -> Machine:
    """The machine as far as it decides latencies."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    kind: Literal["cpu", "cuda"] = "cuda" if device.type == "cuda" else "cpu"
    return Machine(name, kind, threads, str(torch.get_default_dtype()).removeprefix("torch."), torch.__version__)


def _processor() -> str:
    """Linux says which processor it is in /proc/cpuinfo alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure(
    networks: Sequence[tuple[Network, Shapes]],
    device: torch.device,
    threads: int,
    seconds: float,
    batches: Sequence[int] = BATCHES,
    tell: Callable[[str], object] = lambda what: None,
) -> list[Cost]:
    """The costs of networks on `device`; they are left there, in evaluation mode.

    Args:
        networks: teachers and students, and the modalities that each is given; their weights do not matter.
        device: where they run.
        threads: of the CPU, for latency.
        seconds: at least so long each latency is measured.
        batches: batch sizes.
        tell: called with the next measurement.
    """
    for network, _ in networks:
        network.to(device).eval()
    cases = [(network, _inputs(shapes, size, device)) for network, shapes in networks for size in batches]
    tell("parameters, FLOPs and memory")
    memory = [_peak_memory(network, x) for network, x in cases]
    latency = _latencies([_forward(network, x) for network, x in cases], threads, seconds, tell)
    parts = [slice(start, start + len(batches)) for start in range(0, len(cases), len(batches))]
    return [
        Cost(
            parameters=count_parameters(network),
            flops=count_flops(network, _inputs(shapes, 1, device)),
            latency=dict(zip(batches, latency[part], strict=True)),
            memory=dict(zip(batches, memory[part], strict=True)),
        )
        for (network, shapes), part in zip(networks, parts, strict=True)
    ]


def _inputs(shapes: Shapes, batch: int, device: torch.device) -> dict[str, Tensor]:
    """Standardised noise: the time that a network takes does not depend on what it sees."""
    generator = torch.Generator().manual_seed(0)
    return {m: torch.randn(batch, *shape, generator=generator).to(device) for m, shape in shapes.items()}


def _forward(network: Network, x: Mapping[str, Tensor]) -> Callable[[], None]:
    @torch.inference_mode()
    def run() -> None:
        network(x)

    return run


def count_flops(network: Network, x: Mapping[str, Tensor]) -> int:
    """FLOPs of one forward pass on x[modality] (B, T, F).

    Fused attention kernels hide their products from the counter (it then counts as little as none of them), so
    attention is computed by plain matrix products here.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(x)
    return int(counter.get_total_flops())


def _latencies(
    runs: Sequence[Callable[[], None]], threads: int, seconds: float, tell: Callable[[str], object]
) -> list[Latency]:
    """In rounds over all of `runs`, so that a machine that becomes slower or busier does so for all of them."""
    timers = [Timer("run()", globals={"run": run}, num_threads=threads) for run in runs]
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(1, ROUNDS + 1):
        tell(f"latency, round {turn} of {ROUNDS}")
        for timer, known in zip(timers, times, strict=True):
            known += timer.blocked_autorange(min_run_time=seconds / ROUNDS).times
    quartiles = [np.quantile(known, [0.25, 0.5, 0.75]) for known in times]
    return [
        Latency(float(middle), float(high - low), len(known))
        for (low, middle, high), known in zip(quartiles, times, strict=True)
    ]


def _peak_memory(network: Network, x: Mapping[str, Tensor]) -> int:
    run = _forward(network, x)
    run()  # what is made once and kept is no part of a pass
    device = next(iter(x.values())).device
    tensors = [*network.parameters(), *network.buffers(), *x.values()]
    held = sum(tensor.nbytes for tensor in tensors)
    return held + (_peak_on_cuda(run, device) if device.type == "cuda" else peak_on_cpu(run))


def _peak_on_cuda(run: Callable[[], None], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


def peak_on_cpu(run: Callable[[], None]) -> int:
    """Bytes that `run` holds at its peak beyond what was there before.

    The CPU's allocator keeps no peak, but the profiler sees every allocation and release.
    """
    with _silenced(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    now = peak = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: float(e["ts"])):
        now += int(event["args"]["Bytes"])
        peak = max(peak, now)
    return peak


@contextmanager
def _silenced() -> Iterator[None]:
    """Nothing reaches file descriptor 2, where the profiler's library announces that it starts and stops."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
