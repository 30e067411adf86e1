"""The inference costs of a study's networks, compared with the paper's claim: table, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

import analysis.tables.formats as tables
from analysis.loading.runs import Runs
from analysis.networks.distinct import Subject, subjects
from analysis.networks.inference_cost import BATCHES, Cost, Machine, describe_machine, measure
from analysis.tables.csv_json import csv_text
from analysis.tables.model import Cell, Column, Section, Table, TableRow
from analysis.tables.rounding import TIMES
from mmkd.formatting import count
from mmkd.records import read_study
from mmkd.training.lesson import default_device

PAPER = {"teacher_parameters": 1.802e6, "student_parameters": 0.675e6, "compression": 1.802 / 0.675, "time_saved": 0.22}
"""Section 5: "around 2.5 times" fewer parameters, and 29 ms, 22 % less; the batch size is not said."""

MEBI, MEGA = 2**20, 1e6
NOISY = 0.2


@dataclass(frozen=True)
class Measured:
    """A network, its cost, and its teacher's cost (None: it has no teacher, or is one)."""

    subject: Subject
    cost: Cost
    teacher: Cost | None

    @property
    def compression(self) -> float | None:
        """The teacher's parameters over this network's."""
        return None if self.teacher is None else self.teacher.parameters / self.cost.parameters

    def time_saved(self, batch: int) -> float | None:
        """The share of the teacher's latency that it does without; below 0 where it is slower."""
        if self.teacher is None:
            return None
        return 1 - self.cost.latency[batch].median / self.teacher.latency[batch].median


@dataclass(frozen=True)
class Efficiency:
    """The costs of a study's networks on one machine, teachers first."""

    study: str
    title: str
    machine: Machine
    networks: tuple[Measured, ...]


def efficiency(
    runs: Runs,
    study: str,
    device: torch.device | None = None,
    threads: int | None = None,
    seconds: float = 2.0,
    tell: Callable[[str], object] = lambda what: None,
) -> Efficiency:
    """Measure the networks of a study, each once, by default on a GPU if there is one and with torch's own threads.

    See `analysis.networks.inference_cost.measure`.

    Raises:
        UserError: see `analysis.networks.distinct.subjects`.
    """
    device, threads = device or default_device(), threads or torch.get_num_threads()
    found = subjects(runs, study)
    networks = [(s.network, {m: (s.info.steps[m], s.info.features[m]) for m in s.inputs}) for s in found]
    costs = dict(zip((s.label for s in found), measure(networks, device, threads, seconds, tell=tell), strict=True))
    measured = tuple(Measured(s, costs[s.label], None if s.teacher is None else costs[s.teacher]) for s in found)
    return Efficiency(study, read_study(runs.root, study).title, describe_machine(device, threads), measured)


COLUMNS = (
    Column("parameters", "params", "count"),
    Column("compression", "fewer", "times"),
    Column("mflop", "MFLOP", "mean"),
    *(Column(f"ms_{size}", f"ms, batch {size}", "mean") for size in BATCHES),
    *(Column(f"saved_{size}", f"% less time, batch {size}", "mean") for size in BATCHES),
    *(Column(f"mib_{size}", f"MiB, batch {size}", "mean") for size in BATCHES),
)


def to_table(found: Efficiency) -> Table:
    """The costs as a table; a latency is its median and, in parentheses, its interquartile range."""
    rows = tuple(TableRow(n.subject.label, n.subject.label, n.subject.kind, "", _cells(n)) for n in found.networks)
    title, sections = f"Inference cost: {found.title}", (Section(None, rows),)
    return Table(found.study, title, COLUMNS, sections, warnings=tuple(_warnings(found)), notes=tuple(_notes(found)))


def _warnings(found: Efficiency) -> Iterator[str]:
    noisy = [
        f"{one.subject.label} at batch {size}"
        for one in found.networks
        for size, latency in one.cost.latency.items()
        if latency.iqr > NOISY * latency.median
    ]
    if noisy:
        yield (
            f"latencies whose interquartile range is above {NOISY:.0%} of the median, so that they say little: "
            f"{'; '.join(noisy)}. Let nothing else run on the machine"
        )


def _cells(one: Measured) -> dict[str, Cell]:
    cost = one.cost
    fewer = one.compression
    cells = {
        "parameters": Cell(float(cost.parameters), text=f"{cost.parameters:,}"),
        "compression": Cell() if fewer is None else Cell(fewer, text=f"{fewer:.2f}{TIMES}"),
        "mflop": Cell(cost.flops / MEGA, text=f"{cost.flops / MEGA:,.3g}"),
    }
    for size in BATCHES:
        latency, saved, memory = cost.latency[size], one.time_saved(size), cost.memory[size] / MEBI
        cells |= {
            f"ms_{size}": Cell(1e3 * latency.median, text=f"{1e3 * latency.median:.3g} ({1e3 * latency.iqr:.2g})"),
            f"saved_{size}": Cell() if saved is None else Cell(100 * saved, text=f"{100 * saved:z.0f}"),
            f"mib_{size}": Cell(memory, text=f"{memory:.3g}"),
        }
    return cells


def _notes(found: Efficiency) -> Iterator[str]:
    machine = found.machine
    yield (
        f"measured on {machine.device}, {machine.dtype}, {count(machine.threads, 'thread')}, "
        f"torch {machine.torch}; evaluation mode, fused attention"
    )
    blocks = min(cost.latency[size].blocks for cost in (one.cost for one in found.networks) for size in BATCHES)
    yield f"ms: one forward pass, median (interquartile range) of {blocks} or more timed blocks"
    yield (
        "MFLOP: multiplications and additions of matrix products and convolutions for one sample; MiB: weights, inputs "
        "and all that a pass holds at its peak, as torch's allocator counts"
    )
    for one in found.networks:
        if one.subject.kind == "student":
            beside = "" if one.teacher is None else f", compared with “{one.subject.teacher}”"
            yield f"{one.subject.label} is the network of {'; '.join(one.subject.rows)}{beside}"
    yield (
        f"the paper: {PAPER['compression']:.2f} times fewer parameters (1.802 M to 0.675 M) and "
        f"{PAPER['time_saved']:.0%} less time (29 ms) on an RTX 8000, of its best student against the complete teacher"
    )


def _record(found: Efficiency, one: Measured) -> dict[str, Any]:
    """A network's costs at full precision: seconds, bytes, FLOPs of one sample."""
    cost = one.cost
    known: dict[str, Any] = {"study": found.study, "network": one.subject.label, "kind": one.subject.kind}
    known |= {"rows": "; ".join(one.subject.rows), "teacher": one.subject.teacher}
    known |= {"parameters": cost.parameters, "compression": one.compression, "flops": cost.flops}
    for size in BATCHES:
        known |= {f"latency_{size}": cost.latency[size].median, f"latency_{size}_iqr": cost.latency[size].iqr}
        known |= {f"time_saved_{size}": one.time_saved(size), f"memory_{size}": cost.memory[size]}
    return known | asdict(found.machine)


def write(found: Efficiency, style: str) -> str:
    """The costs in one of `analysis.tables.formats.FORMATS`; CSV and JSON (with the paper's) at full precision."""
    records = [_record(found, one) for one in found.networks]
    if style == "csv":
        return csv_text(list(records[0]), records)
    if style == "json":
        value = {"study": found.study, "title": found.title, "networks": records, "paper": PAPER}
        return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return tables.write(to_table(found), style)
