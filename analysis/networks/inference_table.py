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
from mmkd.records import read_study

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
        """How many times fewer parameters than the teacher."""
        return None if self.teacher is None else self.teacher.parameters / self.cost.parameters

    def time_saved(self, batch: int) -> float | None:
        """The share of the teacher's latency that it does without; below 0 where it is slower."""
        return (
            None if self.teacher is None else 1 - self.cost.latency[batch].median / self.teacher.latency[batch].median
        )


@dataclass(frozen=True)
class Efficiency:
    """The costs of a study's networks on one machine, teachers first."""

    study: str
    title: str
    machine: Machine
    networks: tuple[Measured, ...]


def efficiency(
    runs: Runs, study: str, device: torch.device, threads: int, seconds: float, tell: Callable[[str], object]
) -> Efficiency:
    """Measure the networks of a study, each once. See `analysis.networks.inference_cost.measure`.

    Raises:
        UserError: see `analysis.networks.distinct.subjects`.
    """
    found = subjects(runs, study)
    shapes = [{m: (s.info.steps[m], s.info.features[m]) for m in s.inputs} for s in found]
    networks = list(zip((s.network for s in found), shapes, strict=True))
    costs = dict(zip((s.label for s in found), measure(networks, device, threads, seconds, tell=tell), strict=True))
    measured = [Measured(s, costs[s.label], None if s.teacher is None else costs[s.teacher]) for s in found]
    title = read_study(runs.root, study).title
    return Efficiency(study, title, describe_machine(device, threads), tuple(measured))


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
    rows = tuple(
        TableRow(one.subject.label, one.subject.label, one.subject.kind, "", _cells(one)) for one in found.networks
    )
    return Table(
        found.study,
        f"Cost in use: {found.title}",
        COLUMNS,
        (Section(None, rows),),
        warnings=tuple(_warnings(found)),
        notes=tuple(_notes(found)),
    )


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
    cells = {
        "parameters": Cell(float(cost.parameters), text=f"{cost.parameters:,}"),
        "compression": Cell()
        if one.compression is None
        else Cell(one.compression, text=f"{one.compression:.2f}{TIMES}"),
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
        f"measured on {machine.device}, {machine.dtype}, {machine.threads} thread{'s' * (machine.threads > 1)}, "
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
            yield f"{one.subject.label} is the network of {'; '.join(one.subject.rows)}" + _beside(one)
    yield (
        f"the paper: {PAPER['compression']:.2f} times fewer parameters (1.802 M to 0.675 M) and "
        f"{PAPER['time_saved']:.0%} less time (29 ms) on an RTX 8000, of its best student against the complete teacher"
    )


def _beside(one: Measured) -> str:
    return "" if one.subject.teacher is None else f", compared with “{one.subject.teacher}”"


def to_records(found: Efficiency) -> list[dict[str, Any]]:
    """One line a network at full precision: seconds, bytes, FLOPs of one sample."""
    return [_record(found, one) for one in found.networks]


def _record(found: Efficiency, one: Measured) -> dict[str, Any]:
    cost = one.cost
    known: dict[str, Any] = {"study": found.study, "network": one.subject.label, "kind": one.subject.kind}
    known |= {"rows": "; ".join(one.subject.rows), "teacher": one.subject.teacher}
    known |= {"parameters": cost.parameters, "compression": one.compression, "flops": cost.flops}
    for size in BATCHES:
        known |= {f"latency_{size}": cost.latency[size].median, f"latency_{size}_iqr": cost.latency[size].iqr}
        known |= {f"time_saved_{size}": one.time_saved(size), f"memory_{size}": cost.memory[size]}
    return known | asdict(found.machine)


def to_csv(found: Efficiency) -> str:
    """See `to_records`."""
    records = to_records(found)
    return csv_text(list(records[0]), records)


def to_json(found: Efficiency) -> str:
    """See `to_records`; with the paper's figures."""
    value = {"study": found.study, "title": found.title, "networks": to_records(found), "paper": PAPER}
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write(found: Efficiency, style: str) -> str:
    """The costs in one of `analysis.tables.formats.FORMATS`; CSV and JSON at full precision."""
    if style in ("csv", "json"):
        return to_csv(found) if style == "csv" else to_json(found)
    return tables.write(to_table(found), style)
