"""Time, memory, arithmetic and traffic of a step, and the most that the device gives."""

from __future__ import annotations

import math
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

CPU_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
CPU_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Measured:
    """Of one step.

    Median and least wall time and median processor time (of all threads), in ms; the growth of the process's (on CUDA:
    the device's) memory at its peak, in MiB; floating-point operations of matrix products and attention; bytes that
    operators read and write.
    """

    median_ms: float
    least_ms: float
    processor_ms: float
    steps: int
    peak_mib: float
    flops: float
    traffic: float


class Counter(TorchDispatchMode):
    """Counts operator calls, operations and bytes touched, in cache or not: no less than memory's traffic."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.flops, self.traffic = 0, 0.0, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        packet = func._overloadpacket
        self.calls += 1
        if packet == CPU_FLASH:
            self.flops += sdpa_flop_count(args[0].shape, args[1].shape, args[2].shape)
        elif packet == CPU_FLASH_BACKWARD:
            self.flops += sdpa_backward_flop_count(args[0].shape, args[1].shape, args[2].shape, args[3].shape)
        elif packet in flop_registry:
            self.flops += flop_registry[packet](*args, **kwargs, out_val=made)
        if not func.is_view:
            touched = [t for t in tree_leaves((args, kwargs, made)) if isinstance(t, Tensor)]
            self.traffic += sum(t.numel() * t.element_size() for t in touched)
        return made


def measure(step: Callable[[], object], device: torch.device, steps: int, before: float) -> Measured:
    """One step to warm up, one counted, `steps` timed; `before` is the memory (MiB) before anything was prepared."""
    step()
    reset_peak(device)
    with Counter() as counter:
        step()
    wall, processor = [], []
    for _ in range(steps):
        began, spent = time.perf_counter(), time.process_time()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        wall.append(1e3 * (time.perf_counter() - began))
        processor.append(1e3 * (time.process_time() - spent))
    peak = peak_memory(device) - before
    return Measured(
        statistics.median(wall), min(wall), statistics.median(processor), steps, peak, counter.flops, counter.traffic
    )


def memory(device: torch.device) -> float:
    """MiB that the process (the device) holds now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated() / 2**20
    return _status("VmRSS")


def peak_memory(device: torch.device) -> float:
    """MiB at the most since `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return _status("VmHWM")


def reset_peak(device: torch.device) -> None:
    """Begin to look for the peak anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ceilings(device: torch.device) -> dict[str, float]:
    """FLOP/s of the best of ten float32 products of 2048 x 2048, bytes/s of the best of ten copies of 256 MiB."""
    a, b = torch.randn(2, 2048, 2048, device=device)
    source = torch.zeros(2**26, device=device)
    target = torch.zeros_like(source)
    flops = 2 * 2048**3 / _best(lambda: a @ b, device)
    return {"flops": flops, "bytes": 2 * source.numel() * 4 / _best(lambda: target.copy_(source), device)}


def _best(work: Callable[[], object], device: torch.device) -> float:
    best = math.inf
    for _ in range(10):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best
