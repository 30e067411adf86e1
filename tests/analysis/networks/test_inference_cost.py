"""Costs are counted rightly: FLOPs against a count by hand, memory against known sizes."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from figure_root import FigureRoot
from trained_root import build_trained

from analysis import load
from analysis.__main__ import main
from analysis.networks.distinct import subjects
from analysis.networks.inference_cost import Latency, count_flops, measure, peak_on_cpu
from analysis.networks.inference_table import Efficiency, efficiency, to_table, write
from analysis.tables.formats import FORMATS
from mmkd.config import Network as NetworkConfig
from mmkd.data import DatasetInfo, read_info
from mmkd.errors import UserError
from mmkd.models.network import Network, build_student, build_teacher, count_parameters
from mmkd.models.pairings import ends_of, resolve_pairing

CPU = torch.device("cpu")
WIDE = NetworkConfig(width=16, heads=4, layers=3, fusion_layers=2)


@pytest.fixture(scope="module")
def info(small_data: tuple[Path, str]) -> DatasetInfo:
    return read_info(small_data[0])


def stack_flops(queries: int, keys: int, width: int, layers: int, last_only: bool) -> Iterator[int]:
    """Two FLOPs a multiplication and addition; of the last layer one query is enough where only that is read."""
    for layer in range(1, layers + 1):
        rows = 1 if last_only and layer == layers else queries
        yield 2 * rows * width * width  # queries
        yield 2 * 2 * keys * width * width  # keys, values
        yield 2 * 2 * rows * keys * width  # scores, and values mixed by them
        yield 2 * rows * width * width  # output projection
        yield 2 * 2 * rows * width * 4 * width  # up and down


def by_hand(network: Network, config: NetworkConfig, info: DatasetInfo, classes: int) -> int:
    last, total = config.readout == "last", 0
    for projection in network.by_modality().values():
        kernel = projection.convolution.kernel_size[0]
        total += 2 * projection.projected_steps * kernel * info.features[projection.modality] * config.width
    for source, query in network.stack_ends:
        rows, columns = network.map_shape(f"{source}<-{query}")
        total += sum(stack_flops(rows, columns, config.width, config.layers, last and not network.fusions))
    for name, fusion in network.fusions.items():
        steps = network.by_modality()[ends_of(name)[1]].projected_steps
        total += sum(stack_flops(steps, steps, int(fusion.width), config.fusion_layers, last))
    hidden = network.head.first.in_features
    return total + 2 * hidden * hidden * (2 if config.head == "residual" else 1) + 2 * hidden * classes


@pytest.mark.parametrize(
    "changes", [{}, {"readout": "mean"}, {"mask": "mult"}, {"head": "residual", "conv_bias": False}], ids=str
)
def test_flops_are_those_of_a_count_by_hand(info: DatasetInfo, changes: dict[str, Any]) -> None:
    config = WIDE.model_copy(update=changes)
    networks = [build_teacher(info, config, None), build_teacher(info, config, "audio")]
    networks += [
        build_student(info, config, "video", resolve_pairing(pairing, "video", info.modalities), proxies)
        for pairing in ("others", "complete", "audio")
        for proxies in ("down", "up")
    ]
    for network in networks:
        x = {m: torch.zeros(1, info.steps[m], info.features[m]) for m in info.modalities}
        assert count_flops(network.eval(), x) == by_hand(network, config, info, 3)


def test_the_peak_is_of_what_lives_at_once() -> None:
    a = torch.ones(250_000)  # a megabyte

    def run() -> None:
        b = a * 2
        c = b + a
        del b
        c * 3

    assert 2_000_000 <= peak_on_cpu(run) < 2_001_000


def test_a_measurement_has_all_costs(info: DatasetInfo) -> None:
    network = build_teacher(info, WIDE, None)
    shapes = {m: (info.steps[m], info.features[m]) for m in info.modalities}
    (cost,) = measure([(network, shapes)], CPU, threads=1, seconds=0.01)
    assert cost.parameters == count_parameters(network)
    assert cost.flops == by_hand(network, WIDE, info, 3)
    weights = 4 * cost.parameters
    inputs = 4 * sum(steps * features for steps, features in shapes.values())
    assert weights + inputs < cost.memory[1] < cost.memory[64]
    assert cost.memory[64] > weights + 64 * inputs
    for latency in cost.latency.values():
        assert latency.median > 0
        assert latency.iqr >= 0
        assert latency.blocks >= 5
    assert not network.training


def test_nothing_of_the_profiler_is_told(info: DatasetInfo, capfd: pytest.CaptureFixture[str]) -> None:
    peak_on_cpu(lambda: None)
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, str]) -> FigureRoot:
    return build_trained(
        tmp_path_factory.mktemp("efficiency"),
        small_data,
        train=False,  # costs are known before anything is trained
        none={"method": "no_kd"},
        edam={"method": "edam"},
        up={"method": "edam", "settings": {"size": "up"}},
        branch={"method": "kd", "pairing": "audio"},
    )


def test_each_network_is_measured_once_and_named_by_its_rows(root: FigureRoot) -> None:
    found = subjects(load(root.path, cache=False), "demo")
    assert [(subject.label, subject.rows, subject.teacher) for subject in found] == [
        ("Teacher", ("Row edam", "Row up", "Row branch"), None),
        ("Student, pairing others (Row none)", ("Row none", "Row edam"), "Teacher"),
        ("Student, pairing others (Row up)", ("Row up",), "Teacher"),
        ("Student, pairing audio", ("Row branch",), "Teacher"),
    ]
    assert found[0].inputs == ("video", "audio", "text")
    assert {subject.inputs for subject in found[1:]} == {("video",)}


@pytest.fixture(scope="module")
def found(root: FigureRoot) -> Efficiency:
    return efficiency(load(root.path, cache=False), "demo", CPU, threads=1, seconds=0.01, tell=lambda what: None)


def test_students_are_compared_with_their_teachers(found: Efficiency) -> None:
    teacher, student = found.networks[0].cost, found.networks[1]
    assert student.compression == pytest.approx(teacher.parameters / student.cost.parameters)
    assert student.time_saved(64) == pytest.approx(1 - student.cost.latency[64].median / teacher.latency[64].median)
    assert found.networks[0].compression is None
    said = "\n".join(to_table(found).notes)
    for word in ("float32, 1 thread, torch", "2.67 times fewer parameters", "22% less time", "Row none; Row edam"):
        assert word in said


def test_noisy_latencies_are_warned_of(found: Efficiency) -> None:
    one = found.networks[0]
    for iqr, warned in ((0.1, False), (0.3, True)):
        cost = replace(one.cost, latency={size: Latency(1.0, iqr, 9) for size in (1, 64)})
        table = to_table(replace(found, networks=(replace(one, cost=cost),)))
        assert bool(table.warnings) == warned
    assert "Teacher at batch 1; Teacher at batch 64" in table.warnings[0]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_shows_every_network(found: Efficiency, form: str) -> None:
    written = write(found, form)
    assert all(one.subject.label in " ".join(written.split()) for one in found.networks if form != "txt")
    if form == "csv":
        lines = list(csv.DictReader(StringIO(written)))
        assert len(lines) == 4
        assert float(lines[1]["compression"]) == int(lines[0]["parameters"]) / int(lines[1]["parameters"])
        assert lines[0]["compression"] == ""
    if form == "json":
        assert json.loads(written)["networks"][0]["latency_64"] == found.networks[0].cost.latency[64].median


def test_the_command_measures_and_writes(root: FigureRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "costs.csv"
    options = ["efficiency", "--root", str(root.path), "--study", "demo", "--device", "cpu", "--threads", "1"]
    assert main([*options, "--seconds", "0.01", "--no-cache", "--format", "csv", "--out", str(out)]) == 0
    assert next(csv.DictReader(StringIO(out.read_text())))["network"] == "Teacher"
    assert "measuring latency, round 5 of 5" in capsys.readouterr().err


def test_options_that_cannot_be_are_refused(root: FigureRoot, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["efficiency", "--root", str(root.path), "--study", "demo"]
    for options, said in ((["--threads", "0"], "--threads 0"), (["--seconds", "0"], "--seconds 0")):
        assert main([*common, *options]) == 2
        assert said in capsys.readouterr().err


def test_a_study_that_has_not_begun_is_refused(tmp_path: Path) -> None:
    empty = FigureRoot(tmp_path)
    empty.begin("none", "Row none")
    empty.write()
    with pytest.raises(UserError, match="study demo: no trial has begun"):
        subjects(load(tmp_path, cache=False), "demo")
