"""The paper's Fig. 3: attention maps of teacher, student with KD and student without, and how far they are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from analysis.figures.style import DOUBLE, SEQUENTIAL, SINGLE, SMALL, figure_of, house_style, new_grid, plain, wrapped
from analysis.loading.frames import Floats
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect, nothing
from mmkd.data.tensors import Samples, chunks, load_samples
from mmkd.distillation.attention_distance import jensen_shannon
from mmkd.errors import UserError, choose
from mmkd.models.attention import Taps, attention_map
from mmkd.models.network import Network
from mmkd.models.pairings import ends_of
from mmkd.training.lesson import default_device
from mmkd.training.trained_network import load_network

BATCH = 16
"""Samples whose scores are held at once: for the longest pair of MOSEI's sequences 128 MB a layer."""

BRIGHTEST = 99.5
"""Percentile of a column's maps that the brightest colour stands for: a few peaks would darken all else."""


@dataclass(frozen=True)
class NetworkMaps:
    """One line of the figure.

    Attributes:
        label: the network's.
        maps: (L, Tq, Tk) of one sample: each head's softmax, averaged over heads, layer by layer.
        distance: (S, L) Jensen-Shannon divergence to the teacher's maps in bits (0 to 1): of each seed and layer the
            mean over all rows of all test samples. The teacher's own are zeros.
    """

    label: str
    maps: Floats
    distance: Floats


@dataclass(frozen=True)
class AttentionMaps:
    """The figure's maps of the stack `source<-query`, the teacher first.

    `sample` is a test sample's id and `seed` the one whose networks are shown; `seeds` are those behind the distances;
    `uniform` (S, L) is the distance that attending equally to all keys would have.
    """

    stack: str
    sample: str
    seed: int
    seeds: tuple[int, ...]
    networks: tuple[NetworkMaps, ...]
    uniform: Floats


Networks = Mapping[int, Sequence[Network]]
"""Seed -> teacher, student, and the control where it can be compared."""


def attention_data(
    runs: Runs, row: RowRuns, control: RowRuns | None, stack: str | None = None, sample: str | None = None
) -> AttentionMaps:
    """The maps of a row's networks on one test sample, and their distances over the whole test split.

    Networks are compared seed by seed, each student with its own teacher, in the first replicate that has a score:
    others have other test samples, which this one's networks may have been trained on. Layers from the first on, as
    many as all networks have. The control is left out where it has no such stack, or no seed in common.

    Args:
        runs: the root.
        row: a row that learns from a teacher.
        control: the student without distillation, if there is one.
        stack: the paper's arrow, `source<-query`; by default the first that the pairing distils.
        sample: a test sample's id; by default the first, so that nobody chose it for its looks.

    Raises:
        UserError: no final run has a score and a teacher; weights or data are gone; there is no such stack or
            sample; maps are of unlike shape and have no cells in common.
    """
    taught = (one.measured.dropna(subset=["teacher"]) for one in row.replicates)
    done = next((runs_of_one for runs_of_one in taught if len(runs_of_one)), None)
    if done is None:
        raise nothing(row, "final run with a score and a teacher")
    device = default_device()
    students = [load_network(runs.root / directory, device) for directory in done["directory"]]
    teachers = [load_network(runs.root / directory, device) for directory in done["teacher"]]
    first = students[0]
    assert first.pairing is not None
    stack = choose("stack", stack or first.pairing.distilled[0], first.pairing.distilled)
    networks: Networks = {
        int(str(seed)): (teacher.network, student.network)
        for seed, teacher, student in zip(done.index, teachers, students, strict=True)
    }
    labels = ["Teacher", row.spec.label]
    if control is not None:
        networks, labels = _with_control(runs, networks, control, stack, device), [*labels, control.spec.label]
    for members in networks.values():
        _check_shapes(members, stack, row)
    test = load_samples(first.info, "test", first.info.modalities, device)
    number = 0 if sample is None else test.ids.index(choose("test sample", sample, test.ids))
    depth = min(len(network.stack(stack).layers) for members in networks.values() for network in members)
    distances = np.stack([_distances(members, test, stack, depth) for members in networks.values()])
    seeds = tuple(networks)
    shown = _maps(networks[seeds[0]], test, slice(number, number + 1), stack, depth)
    lines = [
        NetworkMaps(label, torch.cat(maps).numpy(force=True), distances[:, line])
        for line, (label, maps) in enumerate(zip(labels, shown, strict=False))  # the control may be left out
    ]
    return AttentionMaps(stack, test.ids[number], seeds[0], seeds, tuple(lines), distances[:, -1])


def _with_control(runs: Runs, networks: Networks, control: RowRuns, stack: str, device: torch.device) -> Networks:
    """The same with the control's networks, for the seeds that it has too; as it was where it cannot be compared."""
    done = control.measured["directory"]
    beside = {seed: load_network(runs.root / done[seed], device).network for seed in networks if seed in done.index}
    if not beside or any(stack not in (*network.stacks, *network.fusions) for network in beside.values()):
        return networks
    return {seed: (*networks[seed], network) for seed, network in beside.items()}


def _check_shapes(networks: Sequence[Network], stack: str, row: RowRuns) -> None:
    teacher, *students = (network.map_shape(stack) for network in networks)
    for shape in students:
        if shape != teacher:
            raise UserError(
                f"{row.title}: maps of {stack} are {shape[0]} x {shape[1]} in the student and {teacher[0]} x "
                f"{teacher[1]} in the teacher: no cells to compare"
            )


@torch.no_grad()
def _maps(networks: Sequence[Network], test: Samples, part: slice, stack: str, depth: int) -> list[list[Tensor]]:
    """Maps (B, Tq, Tk), float64, of some test samples: one list per network, one entry per layer."""
    x = {modality: values[part] for modality, values in test.x.items()}
    taps = {stack: Taps(scores=True)}
    return [[attention_map(s.double()) for s in n.tap(x, taps)[stack].scores[:depth]] for n in networks]


def _distances(networks: Sequence[Network], test: Samples, stack: str, depth: int) -> Floats:
    """Distances (networks + 1, L) in bits to the first network, means over rows and samples; the last is uniform's."""
    sums = np.zeros((len(networks) + 1, depth))
    for part in chunks(len(test), BATCH):
        maps = _maps(networks, test, part, stack, depth)
        teacher = maps[0]
        maps.append([torch.full_like(layer, 1 / layer.shape[-1]) for layer in teacher])
        for number, layers in enumerate(maps):
            for depth_of, (ours, theirs) in enumerate(zip(layers, teacher, strict=True)):
                sums[number, depth_of] += float(jensen_shannon(ours, theirs).mean(1).sum())
    return sums / (len(test) * math.log(2))


def attention_maps(
    runs: Runs,
    study: str,
    row: str,
    stack: str | None = None,
    sample: str | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Maps of teacher, student with KD and student without (rows) in every layer (columns), on one test sample.

    A column has one scale of colour for all its maps. Above a student's map stands its mean distance to the teacher's
    over the test split, mean ± sample standard deviation over seeds. See `attention_data`.

    Args:
        runs, study, row, stack, sample: what is drawn.
        axes: networks x layers of them, row by row; by default those of a new figure.

    Raises:
        UserError: see `attention_data`; or `axes` are of another number.
    """
    found = collect(runs, study)
    chosen = found.row(row)
    data = attention_data(runs, chosen, found.control_of(chosen), stack, sample)
    lines, columns = len(data.networks), len(data.uniform[0])
    if axes is None:
        with house_style():
            width = SINGLE if columns <= 2 else DOUBLE
            drawn = _draw(data, new_grid(lines, columns, width, 1.3 * lines + 1.2, sharex=True, sharey=True))
            drawn[0].figure.suptitle(wrapped(caption(data), width - 0.3, SMALL), fontsize=SMALL)
            return drawn
    if len(axes) != lines * columns:
        raise UserError(f"{len(axes)} axes, but {lines} networks in {columns} layers have {lines * columns} maps")
    return _draw(data, axes)


def _draw(data: AttentionMaps, axes: Sequence[Axes]) -> list[Axes]:
    lines, columns = len(data.networks), len(data.uniform[0])
    source, query = ends_of(data.stack)
    inches = _span(axes[:1])
    for layer in range(columns):
        column = axes[layer::columns]
        brightest = float(np.percentile([network.maps[layer] for network in data.networks], BRIGHTEST))
        for ax, network in zip(column, data.networks, strict=True):
            image = ax.imshow(
                network.maps[layer], cmap=SEQUENTIAL, vmin=0, vmax=brightest, aspect="auto", interpolation="nearest"
            )
        column[-1].set_xlabel(wrapped(f"key: {source} step", 1.15 * inches))
        bar = column[-1].figure.colorbar(image, ax=list(column), location="bottom", fraction=0.05, label="attention")
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(4)
    axes[lines // 2 * columns].set_ylabel(plain(f"query: {query} step"))  # of all rows; one row is too low for it
    for number, network in enumerate(data.networks):
        _name(data, network, axes[number * columns : (number + 1) * columns])
    return list(axes)


def _name(data: AttentionMaps, network: NetworkMaps, line: Sequence[Axes]) -> None:
    """A network's label above its maps, on a separate line across all of them, and a title above each map."""
    if network is data.networks[0]:
        titles = [f"layer {k + 1}\n(uniform {_spread(data.uniform[:, k])})" for k in range(len(line))]
    else:
        titles = [f"JSD {_spread(network.distance[:, k])}" for k in range(len(line))]
    for ax, title in zip(line, titles, strict=True):
        ax.set_title(title)
    below = "\n" * (1 + titles[0].count("\n"))
    line[0].set_title(wrapped(network.label, 0.9 * _span(line)) + below, loc="left", fontweight="bold")  # bold is wide


def _span(line: Sequence[Axes]) -> float:
    """Inches from the first to the last of some axes, before labels are given room."""
    return float(line[-1].get_window_extent().x1 - line[0].get_window_extent().x0) / figure_of(line[0]).dpi


def caption(data: AttentionMaps) -> str:
    """The figure's caption."""
    seeds = ", ".join(map(str, data.seeds))
    return (
        f"test sample {data.sample}, seed {data.seed}; JSD: Jensen-Shannon divergence to the teacher's rows in bits, "
        f"mean over the test split, ± SD over seeds {seeds}; uniform: that of equal attention to all keys"
    )


def _spread(values: Floats) -> str:
    """Mean ± sample standard deviation, three decimals."""
    spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"
