"""What teachers and students are made of, what they read, and what can be tapped of them."""

from __future__ import annotations

import pytest
import torch
from small_networks import FEATURES, STEPS, STILL, make_config, make_info, make_inputs, stir
from torch import Tensor

from mmkd.config import Network as NetworkConfig
from mmkd.models.attention import Embedding, Taps
from mmkd.models.network import Network, build_student, build_teacher, count_parameters
from mmkd.models.pairings import fusion_name, resolve_pairing

PAIRINGS = ["complete", "others", "video", "audio", "text"]
TENFOLD = {"video": 20, "audio": 9, "text": 2}


def make_teacher(branch: str | None = None, config: NetworkConfig | None = None) -> Network:
    torch.manual_seed(0)
    teacher = stir(build_teacher(make_info(), config or make_config(dropout=STILL), branch))
    assert isinstance(teacher, Network)
    return teacher


def make_student(
    pairing: str = "others",
    primary: str = "video",
    steps: dict[str, int] = STEPS,
    proxies: str = "down",
    **config: object,
) -> Network:
    torch.manual_seed(0)
    info = make_info(steps)
    resolved = resolve_pairing(pairing, primary, info.modalities)
    student = build_student(info, make_config(**{"dropout": STILL, **config}), primary, resolved, proxies)  # type: ignore[arg-type]
    assert isinstance(stir(student), Network)
    return student


def stack_parameters(width: int, layers: int) -> int:
    return layers * (12 * width**2 + 13 * width) + 2 * width


def linear_parameters(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


# --- what is built


def test_the_complete_teacher_has_a_stack_for_each_ordered_pair_and_a_fusion_for_each_modality() -> None:
    teacher = make_teacher()
    assert set(teacher.stacks) == {f"{y}<-{x}" for x in STEPS for y in STEPS if x != y}
    assert set(teacher.fusions) == {fusion_name(m) for m in STEPS}
    convolutions = sum(3 * f * 8 + 8 for f in FEATURES.values())
    head = linear_parameters(48, 48) + linear_parameters(48, 3)
    assert count_parameters(teacher) == convolutions + 6 * stack_parameters(8, 3) + 3 * stack_parameters(16, 2) + head


@pytest.mark.parametrize("branch", STEPS)
def test_a_teacher_branch_builds_nothing_else(branch: str) -> None:
    teacher = make_teacher(branch)
    assert set(teacher.stacks) == {f"{y}<-{branch}" for y in STEPS if y != branch}
    assert set(teacher.fusions) == {fusion_name(branch)}
    convolutions = sum(3 * f * 8 + 8 for f in FEATURES.values())
    head = linear_parameters(16, 16) + linear_parameters(16, 3)
    assert count_parameters(teacher) == convolutions + 2 * stack_parameters(8, 3) + stack_parameters(16, 2) + head


@pytest.mark.parametrize("branch", [None, "audio"])
def test_no_parameter_of_a_teacher_is_without_use(branch: str | None) -> None:
    teacher = make_teacher(branch)
    teacher(make_inputs(make_info())).logits.square().sum().backward()
    unused = [name for name, p in teacher.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_student_has_the_stacks_and_projections_of_its_pairing_and_uses_them_all(pairing: str) -> None:
    resolved = resolve_pairing(pairing, "video", list(STEPS))
    student = make_student(pairing)
    assert set(student.stacks) == {f"{y}<-{x}" for y, x in resolved.stacks}
    assert set(student.fusions) == ({fusion_name(m) for m in STEPS} if pairing == "complete" else set())
    student(make_inputs(make_info())).logits.square().sum().backward()
    assert [name for name, p in student.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("primary", STEPS)
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_student_reads_its_primary_alone(pairing: str, primary: str) -> None:
    student = make_student(pairing, primary)
    inputs = make_inputs(make_info())
    alone = student({primary: inputs[primary]}).logits
    torch.testing.assert_close(student(inputs).logits, alone, atol=0.0, rtol=0.0)
    assert {p.convolution.in_channels for p in student.by_modality().values()} == {FEATURES[primary]}


@pytest.mark.parametrize("proxies", ["down", "up"])
def test_a_multimodal_student_is_a_teacher_of_its_own_size(proxies: str) -> None:
    student = make_student("multimodal", "audio", proxies=proxies, kernels={"text": 5})
    teacher = make_teacher(config=make_config(dropout=STILL, kernels={"text": 5}))
    student.load_state_dict(teacher.state_dict())
    inputs = make_inputs(make_info())
    torch.testing.assert_close(student(inputs).logits, teacher(inputs).logits, atol=0.0, rtol=0.0)


def test_two_and_four_modalities_work_like_three() -> None:
    for steps in ({"depth": 5, "imu": 3}, {"a": 6, "b": 5, "c": 3, "d": 2}):
        info = make_info(steps)
        inputs = make_inputs(info)
        teacher = stir(build_teacher(info, make_config(), None))
        assert teacher(inputs).logits.shape == (4, 3)
        for name in ("complete", "others", "multimodal", *steps):
            pairing = resolve_pairing(name, list(steps)[1], info.modalities)
            student = stir(build_student(info, make_config(), list(steps)[1], pairing))
            branch = stir(build_teacher(info, make_config(), pairing.branch))
            assert isinstance(student, Network)
            assert isinstance(branch, Network)
            assert student(inputs).logits.shape == (4, 3)
            for stack in pairing.distilled:
                assert student.map_shape(stack) == branch.map_shape(stack)


# --- proxies


@pytest.mark.parametrize(
    "steps", [STEPS, TENFOLD, {"video": 4, "audio": 9, "text": 4}, {"video": 7, "audio": 3, "text": 5}]
)
@pytest.mark.parametrize("primary", STEPS)
def test_proxies_down_have_the_lengths_of_the_teachers_modalities(primary: str, steps: dict[str, int]) -> None:
    student = make_student("complete", primary, steps)
    x = make_inputs(make_info(steps))[primary]
    for modality, projection in student.by_modality().items():
        assert projection(x).shape == (4, steps[modality], 8)
        assert projection.projected_steps == steps[modality]
        stride = 1 if modality == primary else max(1, round(steps[primary] / steps[modality]))
        assert projection.convolution.stride == (stride,)
        assert projection.convolution.kernel_size == (stride if stride > 1 else 3,)


@pytest.mark.parametrize("primary", STEPS)
def test_proxies_up_keep_the_length_of_the_primary(primary: str) -> None:
    student = make_student("complete", primary, TENFOLD, proxies="up", kernels={"audio": 5, "text": 1})
    x = make_inputs(make_info(TENFOLD))[primary]
    kernels = {"video": 3, "audio": 5, "text": 1}
    for modality, projection in student.by_modality().items():
        assert projection(x).shape == (4, TENFOLD[primary], 8)
        assert projection.convolution.stride == (1,)
        assert projection.convolution.kernel_size == (kernels[modality],)
    assert {student.map_shape(name) for name in student.stacks} == {(TENFOLD[primary], TENFOLD[primary])}


def interpolated(x: Tensor, steps: int) -> Tensor:
    """Linear interpolation of (T, F) to `steps` cell centres, one at a time."""
    rows = []
    for t in range(steps):
        place = min(max((t + 0.5) * len(x) / steps - 0.5, 0.0), len(x) - 1.0)
        before = int(place)
        after = min(before + 1, len(x) - 1)
        rows.append((1 - (place - before)) * x[before] + (place - before) * x[after])
    return torch.stack(rows)


@pytest.mark.parametrize(("primary_steps", "steps"), [(20, 9), (6, 5), (4, 9), (10, 5), (20, 2)])
def test_a_proxy_interpolates_to_s_times_its_length_and_then_convolves_with_stride_s(
    primary_steps: int, steps: int
) -> None:
    lengths = {"video": primary_steps, "audio": steps}
    student = make_student("others", "video", lengths)
    projection = student.by_modality()["audio"]
    x = make_inputs(make_info(lengths))["video"]
    s = max(1, round(primary_steps / steps))
    source = interpolated(x[0], s * steps) if s * steps != primary_steps else x[0]
    weight, bias = projection.convolution.weight, projection.convolution.bias  # (D, F, kernel)
    kernel = weight.shape[2]
    pad = 0 if s > 1 else (kernel - 1) // 2
    padded = torch.cat([source.new_zeros(pad, source.shape[1]), source, source.new_zeros(pad, source.shape[1])])
    expected = torch.stack(
        [torch.einsum("kf,dfk->d", padded[t * s : t * s + kernel], weight) + bias for t in range(steps)]
    )
    torch.testing.assert_close(projection(x)[0], expected)


# --- readout, head, fusion


def embed(x: Tensor) -> Tensor:
    embedded: Tensor = Embedding(*x.shape[1:])(x)
    return embedded


def independent_readout(student: Network, inputs: dict[str, Tensor], reduce: str) -> Tensor:
    sequences = {m: embed(p(inputs[p.modality])) for m, p in student.by_modality().items()}
    parts = []
    for source, query in student.stack_ends:
        output, _ = student.stack(f"{source}<-{query}")(sequences[query], sequences[source])
        parts.append(
            output[:, -1] if reduce == "last" else sum(output[:, t] for t in range(output.shape[1])) / output.shape[1]
        )
    return torch.cat(parts, 1)


@pytest.mark.parametrize("readout", ["last", "mean"])
def test_the_readouts_of_all_stacks_are_concatenated_and_go_through_the_head(readout: str) -> None:
    student = make_student("others", readout=readout)
    inputs = make_inputs(make_info())
    h = independent_readout(student, inputs, readout)
    hidden = (h @ student.head.first.weight.T + student.head.first.bias).clamp_min(0)
    logits = hidden @ student.head.out.weight.T + student.head.out.bias
    outputs = student(inputs)
    assert h.shape == (4, 24)
    torch.testing.assert_close(outputs.penultimate, hidden)
    torch.testing.assert_close(outputs.logits, logits)


def test_last_and_mean_are_different_readouts() -> None:
    inputs = make_inputs(make_info())
    assert not torch.allclose(make_student(readout="last")(inputs).logits, make_student(readout="mean")(inputs).logits)


def test_the_residual_head_is_mults() -> None:
    student = make_student(head="residual")
    inputs = make_inputs(make_info())
    h = independent_readout(student, inputs, "last")
    head = student.head
    assert head.second is not None
    z = (h @ head.first.weight.T + head.first.bias).clamp_min(0) @ head.second.weight.T + head.second.bias + h
    torch.testing.assert_close(student(inputs).penultimate, z)
    torch.testing.assert_close(student(inputs).logits, z @ head.out.weight.T + head.out.bias)


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("branch", [None, "text"])
def test_stacks_with_the_same_queries_are_joined_and_fused(branch: str | None, readout: str) -> None:
    teacher = make_teacher(branch, make_config(dropout=STILL, readout=readout))
    inputs = make_inputs(make_info())
    sequences = {m: embed(p(inputs[m])) for m, p in teacher.by_modality().items()}
    parts = []
    for query in [branch] if branch else STEPS:
        sources = [y for y in STEPS if y != query]
        joined = torch.cat([teacher.stack(f"{y}<-{query}")(sequences[query], sequences[y])[0] for y in sources], -1)
        fused, _ = teacher.stack(f"fusion:{query}")(embed(joined), embed(joined))
        parts.append(fused[:, -1] if readout == "last" else fused.mean(1))
    h = torch.cat(parts, 1)
    hidden = (h @ teacher.head.first.weight.T + teacher.head.first.bias).clamp_min(0)
    torch.testing.assert_close(teacher(inputs).penultimate, hidden)


@pytest.mark.parametrize("setting", ["fixed", "updated"])
def test_keys_are_updated_only_where_keys_and_queries_are_one_sequence(setting: str) -> None:
    teacher, student = make_teacher(None, make_config(self_attention=setting)), make_student(self_attention=setting)
    updated = {name for n in (teacher, student) for name in (*n.stacks, *n.fusions) if n.stack(name).updated}
    assert updated == ({"video<-video", *(fusion_name(m) for m in STEPS)} if setting == "updated" else set())


def test_attention_dropout_may_depend_on_the_source_and_on_the_stage() -> None:
    dropout = {**STILL, "attention": 0.1, "attention_from": {"text": 0.2}, "attention_fusion": 0.3}
    teacher = make_teacher(None, make_config(dropout=dropout))
    for name in (*teacher.stacks, *teacher.fusions):
        expected = 0.3 if name in teacher.fusions else 0.2 if name.startswith("text<-") else 0.1
        assert {layer.attention.dropout for layer in teacher.stack(name).layers} == {expected}
    usual = make_teacher(None, make_config(dropout={**STILL, "attention": 0.1}))
    assert {layer.attention.dropout for name in usual.fusions for layer in usual.stack(name).layers} == {0.1}


def test_the_penultimate_layer_is_taken_before_dropout() -> None:
    student = make_student(dropout={**STILL, "output": 0.9})
    inputs = make_inputs(make_info())
    still = student(inputs)
    student.train()
    torch.manual_seed(0)
    moving = student(inputs)
    torch.testing.assert_close(moving.penultimate, still.penultimate)
    assert not torch.allclose(moving.logits, still.logits)


# --- taps of whole networks


@pytest.mark.parametrize("taps", [Taps(scores=True), Taps(attended=True), Taps(scores=True, rows=torch.tensor([2, 1]))])
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_cut_teacher_sees_what_a_full_forward_sees(pairing: str, taps: Taps) -> None:
    resolved = resolve_pairing(pairing, "video", list(STEPS))
    teacher = make_teacher(resolved.branch)
    inputs = make_inputs(make_info())
    wanted = dict.fromkeys(resolved.distilled, taps)
    cut, whole = teacher.tap(inputs, wanted), teacher(inputs, wanted).tapped
    assert set(cut) == set(whole) == set(resolved.distilled)
    for name in resolved.distilled:
        layers = 2 if name.startswith("fusion") else 3
        assert len(cut[name].scores or cut[name].attended) == layers
        torch.testing.assert_close(vars(cut[name]), vars(whole[name]), atol=0.0, rtol=0.0)


def test_the_cut_teacher_runs_only_the_stacks_and_projections_that_are_distilled() -> None:
    teacher = make_teacher()
    ran: list[str] = []
    for name, module in [*teacher.by_modality().items(), *teacher.stacks.items(), *teacher.fusions.items()]:
        module.register_forward_hook(lambda *_, n=name: ran.append(n))
        for layer in getattr(module, "layers", []):
            layer.register_forward_hook(lambda *_, n=name: ran.append(n))
    teacher.tap(make_inputs(make_info()), {"video<-text": Taps(scores=True)})
    assert sorted(ran) == ["text", "video", "video<-text", "video<-text"]  # two of its three layers


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_maps_have_the_shape_that_is_announced_and_the_teachers(pairing: str) -> None:
    resolved = resolve_pairing(pairing, "video", list(STEPS))
    inputs = make_inputs(make_info())
    wanted = dict.fromkeys(resolved.distilled, Taps(scores=True))
    student, teacher = make_student(pairing), make_teacher(resolved.branch)
    ours, theirs = student(inputs, wanted).tapped, teacher.tap(inputs, wanted)
    for name in resolved.distilled:
        shapes = {s.shape[2:] for s in (*ours[name].scores, *theirs[name].scores)}
        assert shapes == {student.map_shape(name)} == {teacher.map_shape(name)}


def test_tapping_the_student_leaves_its_outputs_as_they_are() -> None:
    student = make_student()
    inputs = make_inputs(make_info())
    plain, tapped = student(inputs), student(inputs, dict.fromkeys(student.stacks, Taps(scores=True)))
    torch.testing.assert_close(tapped.logits, plain.logits, atol=0.0, rtol=0.0)
    assert plain.tapped == {}
    assert set(tapped.tapped) == set(student.stacks)


@pytest.mark.parametrize("name", ["type", "half"])
def test_a_modality_may_bear_the_name_of_a_method_of_torch(name: str) -> None:
    info = make_info({"video": 4, name: 3})
    assert build_teacher(info, make_config(), None)
