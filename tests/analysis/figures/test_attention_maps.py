"""Attention maps are those of the trained networks, and their distance to the teacher is what its definition says."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import faults
from matplotlib.figure import Figure
from trained_root import build_trained

from analysis import load
from analysis.figures.attention_maps import AttentionMaps, attention_data, attention_maps
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect
from mmkd.data import read_split
from mmkd.errors import UserError
from mmkd.models.network import Network
from mmkd.training.trained_network import load_network

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, str]) -> Runs:
    root = tmp_path_factory.mktemp("attention")
    build_trained(
        root,
        small_data,
        none={"method": "no_kd"},
        edam={"method": "edam"},
        up={"method": "edam", "settings": {"size": "up"}},
        branch={"method": "kd", "pairing": "audio"},
    )
    return load(root, cache=False)


def both(runs: Runs, name: str) -> tuple[RowRuns, RowRuns | None]:
    study = collect(runs, "demo")
    return study.row(name), study.control_of(study.row(name))


@pytest.fixture(scope="module")
def data(runs: Runs) -> AttentionMaps:
    return attention_data(runs, *both(runs, "edam"))


def by_hand(network: Network, x: dict[str, torch.Tensor], layer: int) -> np.ndarray:
    """Layer `layer` of stack video<-audio: (N, Tq, Tk), head by head with the layer's own weights."""
    stack = network.stack("video<-audio")
    placed = network.by_modality()
    queries, sources = (network.embeddings[f"to {m}"](placed[m](x[placed[m].modality])) for m in ("audio", "video"))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = stack.layers[layer].register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0], inputs[1])))
    stack(queries, sources)
    handle.remove()
    block = stack.layers[layer]
    query, key = block.attention_norm(seen[0][0]), block.attention_norm(seen[0][1])
    width, heads = query.shape[-1], block.attention.heads
    weights, bias = block.attention.in_projection, block.attention.in_bias
    q, k = query @ weights[:width].T + bias[:width], key @ weights[width : 2 * width].T + bias[width : 2 * width]
    each = width // heads
    maps = []
    for head in range(heads):
        part = slice(head * each, (head + 1) * each)
        maps.append((q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(each)).softmax(-1))
    return torch.stack(maps).mean(0).detach().double().numpy()


def entropy(p: np.ndarray) -> float:
    return -sum(float(x) * math.log2(x) for x in p if x > 0)


def test_maps_and_distances_are_those_of_the_definition(
    runs: Runs, data: AttentionMaps, small_data: tuple[Path, str]
) -> None:
    test = read_split(small_data[0], "test")
    x = {m: torch.from_numpy(values) for m, values in test.arrays.items()}
    row, control = both(runs, "edam")
    assert control is not None
    for position, seed in enumerate((1, 2)):
        line = row.final_runs.loc[seed]
        directories = [line["teacher"], line["directory"], control.final_runs.loc[seed, "directory"]]
        networks = [load_network(runs.root / str(d), CPU).network for d in directories]
        for layer in range(2):
            maps = [by_hand(network, x, layer) for network in networks]
            if position == 0:
                for found, ours in zip(data.networks, maps, strict=True):
                    assert found.maps[layer] == pytest.approx(ours[0], abs=1e-6)
            for found, ours in zip(data.networks, maps, strict=True):
                rows = zip(ours.reshape(-1, 8), maps[0].reshape(-1, 8), strict=True)
                divergences = [entropy((a + b) / 2) - (entropy(a) + entropy(b)) / 2 for a, b in rows]
                assert found.distance[position, layer] == pytest.approx(np.mean(divergences), abs=1e-6)
            flat = [entropy((1 / 8 + b) / 2) - (3 + entropy(b)) / 2 for b in maps[0].reshape(-1, 8)]
            assert data.uniform[position, layer] == pytest.approx(np.mean(flat), abs=1e-6)


def test_it_shows_the_first_sample_of_test_and_names_it(data: AttentionMaps, small_data: tuple[Path, str]) -> None:
    assert data.sample == read_split(small_data[0], "test").ids[0]
    assert (data.stack, data.seed, data.seeds) == ("video<-audio", 1, (1, 2))
    assert [network.label for network in data.networks] == ["Teacher", "Row edam", "Row none"]
    assert all(network.maps.shape == (2, 6, 8) for network in data.networks)
    assert not data.networks[0].distance.any()
    assert all((network.distance > 0).all() for network in data.networks[1:])


def test_another_sample_has_other_maps_and_the_same_distances(
    runs: Runs, data: AttentionMaps, small_data: tuple[Path, str]
) -> None:
    wanted = read_split(small_data[0], "test").ids[3]
    other = attention_data(runs, *both(runs, "edam"), sample=wanted)
    assert other.sample == wanted
    assert not np.allclose(other.networks[1].maps, data.networks[1].maps)
    assert np.array_equal(other.networks[1].distance, data.networks[1].distance)


def test_a_control_is_shown_where_it_has_the_stack_and_left_out_where_not(runs: Runs) -> None:
    row, control = both(runs, "branch")
    shared, own = (attention_data(runs, row, control, stack=stack) for stack in ("video<-audio", "text<-audio"))
    assert [network.label for network in shared.networks] == ["Teacher", "Row branch", "Row none"]
    assert [network.label for network in own.networks] == ["Teacher", "Row branch"]


def test_what_cannot_be_compared_is_refused(runs: Runs) -> None:
    row, control = both(runs, "edam")
    with pytest.raises(UserError, match=r"unknown stack 'audio<-text'.*choices: video<-audio, video<-text"):
        attention_data(runs, row, control, stack="audio<-text")
    with pytest.raises(UserError, match="unknown test sample 'nobody'"):
        attention_data(runs, row, control, sample="nobody")
    with pytest.raises(UserError, match="Row none: no final run with a score and a teacher"):
        attention_data(runs, *both(runs, "none"))
    with pytest.raises(UserError, match="Row up: maps of video<-audio are 8 x 8 in the student and 6 x 8 in the teach"):
        attention_data(runs, *both(runs, "up"))


def test_the_figure_states_sample_seed_axes_and_distances(runs: Runs, data: AttentionMaps) -> None:
    axes = attention_maps(runs, "demo", "edam")
    figure = axes[0].get_figure(root=True)
    assert figure is not None
    assert faults(figure) == []
    assert len(axes) == 6
    assert (axes[2].get_ylabel(), axes[4].get_xlabel()) == ("query: audio step", "key: video step")
    assert [ax.get_title("left").strip() for ax in axes[::2]] == ["Teacher", "Row edam", "Row none"]
    assert axes[2].get_title().startswith(f"JSD {data.networks[1].distance[:, 0].mean():.3f} ± ")
    assert "uniform" in axes[0].get_title()
    assert f"test sample {data.sample}, seed 1" in " ".join(figure.get_suptitle().split())
    # One scale of colours a column, shared by the networks.
    limits = [ax.images[0].get_clim() for ax in axes]
    assert limits[0] == limits[2] == limits[4] != limits[1] == limits[3] == limits[5]


def test_no_label_is_clipped_or_lies_over_another_however_long_it_is(
    runs: Runs, data: AttentionMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ("Teacher", "CRD on attention maps of the gyroscope and the skeleton", f"Student {'W' * 40} without KD")
    named = [replace(network, label=label) for network, label in zip(data.networks, labels, strict=True)]
    long = replace(data, networks=tuple(named), stack="electroencephalography<-electrooculography")
    monkeypatch.setattr("analysis.figures.attention_maps.attention_data", lambda *_: long)
    figure = attention_maps(runs, "demo", "edam")[0].get_figure(root=True)
    assert figure is not None
    assert faults(figure) == []


def test_it_draws_on_given_axes_if_they_are_enough(runs: Runs) -> None:
    axes = list(Figure().subplots(2, 2).flat)
    assert attention_maps(runs, "demo", "branch", "text<-audio", axes=axes) == axes
    assert all(len(ax.images) == 1 for ax in axes)
    with pytest.raises(UserError, match=r"3 axes, but 2 networks in 2 layers have 4 maps"):
        attention_maps(runs, "demo", "branch", "text<-audio", axes=axes[:3])
