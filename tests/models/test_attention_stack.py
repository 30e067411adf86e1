"""Attention and the encoder stack against slow implementations that share no code with them."""

from __future__ import annotations

import math

import pytest
import torch
from small_networks import STILL, stir
from torch import Tensor

from mmkd.config import Dropout
from mmkd.models.attention import Attention, Embedding, Layer, Stack, Taps, attention_map, mult_mask, positions

WIDTH, HEADS, BATCH = 6, 3, 2


def make_stack(
    layers: int = 3,
    masked: bool = False,
    lengths: tuple[int, int] = (4, 5),
    width: int = WIDTH,
    heads: int = HEADS,
    updated: bool = False,
    **dropout: float,
) -> Stack:
    """A stack for `lengths` of query and source, which matter to a masked one alone."""
    torch.manual_seed(0)
    mask = mult_mask(*lengths) if masked else None
    stack = stir(Stack(width, heads, layers, Dropout(**{**STILL, **dropout}), mask, updated=updated))
    assert isinstance(stack, Stack)
    return stack


def make_pair(queries: int, keys: int, width: int = WIDTH, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(BATCH, queries, width, generator=generator, dtype=torch.float64)
    source = torch.randn(BATCH, keys, width, generator=generator, dtype=torch.float64)
    return query.requires_grad_(), source.requires_grad_()


def embed(*sequences: Tensor) -> list[Tensor]:
    return [Embedding(*x.shape[1:])(x) for x in sequences]


# --- the slow implementations: one number at a time where it matters


def visible(i: int, j: int, queries: int, keys: int) -> bool:
    """research/kd.md: key j is hidden from query i where j - i >= 1 + |Tq - Tk|."""
    return not j - i >= 1 + abs(queries - keys)


def slow_attention(a: Attention, query: Tensor, source: Tensor, masked: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Output (B, Tq, D), scores and probabilities (B, heads, Tq, Tk), head by head and query by query."""
    width, size = query.shape[-1], query.shape[-1] // a.heads
    outputs, all_scores, all_maps = [], [], []
    for b in range(len(query)):
        heads, scores, maps = [], [], []
        for h in range(a.heads):
            part = [slice(p * width + h * size, p * width + (h + 1) * size) for p in range(3)]
            q, k, v = (
                x @ a.in_projection[s].T + a.in_bias[s]
                for x, s in zip((query[b], source[b], source[b]), part, strict=True)
            )
            rows, row_scores, row_maps = [], [], []
            for i in range(len(q)):
                raw = torch.stack([(q[i] * k[j]).sum() / math.sqrt(size) for j in range(len(k))])
                seen = [not masked or visible(i, j, len(q), len(k)) for j in range(len(k))]
                raw = torch.stack([r if s else torch.full_like(r, -math.inf) for r, s in zip(raw, seen, strict=True)])
                p = raw.exp() / raw.exp().sum()
                rows.append(sum(p[j] * v[j] for j in range(len(k))))
                row_scores.append(raw)
                row_maps.append(p)
            heads.append(torch.stack(rows))  # type: ignore[arg-type]
            scores.append(torch.stack(row_scores))
            maps.append(torch.stack(row_maps))
        joined = torch.cat(heads, 1)
        outputs.append(joined @ a.out_projection.weight.T + a.out_projection.bias)
        all_scores.append(torch.stack(scores))
        all_maps.append(torch.stack(maps))
    return torch.stack(outputs), torch.stack(all_scores), torch.stack(all_maps)


def slow_norm(norm: torch.nn.LayerNorm, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def slow_positions(x: Tensor) -> Tensor:
    """MulT's: sines in the first half, cosines in the second, from 1; none where the first channel is exactly 0."""
    width = x.shape[-1]
    half = width // 2
    out = torch.zeros_like(x)
    for b in range(len(x)):
        for t in range(x.shape[1]):
            if x[b, t, 0] == 0:
                continue
            for i in range(half):
                angle = (t + 1) * math.exp(-i * math.log(10_000) / (half - 1))
                out[b, t, i], out[b, t, half + i] = math.sin(angle), math.cos(angle)
    return out


def slow_stack(
    stack: Stack, query: Tensor, source: Tensor, *, updated: bool = False
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Output, and of each layer the scores and the attention module's output.

    With `updated` as in MulT's `TransformerEncoder.forward(x)`, which calls `layer(x)`: the source is x itself.
    """
    x = math.sqrt(query.shape[-1]) * query + slow_positions(query)
    keys = math.sqrt(source.shape[-1]) * source + slow_positions(source)
    all_scores, all_attended = [], []
    for layer in stack.layers:
        assert isinstance(layer, Layer)
        q, k = slow_norm(layer.attention_norm, x), slow_norm(layer.attention_norm, x if updated else keys)
        attended, scores, _ = slow_attention(layer.attention, q, k, stack.mask is not None)
        x = x + attended
        hidden = slow_norm(layer.forward_norm, x) @ layer.up.weight.T + layer.up.bias
        hidden = torch.where(hidden > 0, hidden, torch.zeros_like(hidden))
        x = x + hidden @ layer.down.weight.T + layer.down.bias
        all_scores.append(scores)
        all_attended.append(attended)
    return slow_norm(stack.norm, x), all_scores, all_attended


def gradients(of: Tensor, stack: Stack, *inputs: Tensor) -> list[Tensor]:
    """Of a fixed random functional of `of`."""
    weights = torch.randn(of.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return list(torch.autograd.grad((of * weights).sum(), [*stack.parameters(), *inputs]))


# --- positions and mask


@pytest.mark.parametrize("width", [4, 6, 40])
def test_positions_follow_the_formula_of_mult(width: int) -> None:
    x = torch.ones(1, 7, width, dtype=torch.float64)
    torch.testing.assert_close(positions(7, width).double(), slow_positions(x)[0], atol=2e-6, rtol=0)


def test_an_odd_width_ends_in_a_channel_without_position() -> None:
    odd = positions(5, 7)
    torch.testing.assert_close(odd[:, :6], positions(5, 6))
    assert not odd[:, 6].any()


@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (3, 5), (5, 3), (1, 4), (50, 500), (500, 50)])
def test_the_mask_hides_what_mult_hides(queries: int, keys: int) -> None:
    mask = mult_mask(queries, keys)
    assert mask.tolist() == [[visible(i, j, queries, keys) for j in range(keys)] for i in range(queries)]


def test_the_mask_is_causal_for_equal_lengths_and_absent_for_long_queries() -> None:
    assert torch.equal(mult_mask(5, 5), torch.ones(5, 5).tril().bool())
    assert mult_mask(500, 50).all()
    fifty = mult_mask(50, 500)
    assert all(fifty[i].nonzero().max() == i + 450 for i in range(49))  # j <= i + 450


# --- attention


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (3, 5), (5, 3)])
def test_attention_equals_a_loop_over_heads(queries: int, keys: int, masked: bool) -> None:
    attention = stir(Attention(WIDTH, HEADS, dropout=0.0))
    assert isinstance(attention, Attention)
    query, source = make_pair(queries, keys)
    mask = mult_mask(queries, keys) if masked else None
    output, scores, probabilities = slow_attention(attention, query, source, masked)
    projected = attention.project(query, source, mask)
    torch.testing.assert_close(attention(*projected), output)
    torch.testing.assert_close(projected[0].dense(), scores)
    torch.testing.assert_close(attention_map(scores), probabilities.mean(1))
    torch.testing.assert_close(attention_map(scores).sum(-1), torch.ones(BATCH, queries, dtype=torch.float64))


def test_a_temperature_acts_inside_each_head_before_the_mean_over_heads() -> None:
    scores = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    powered = scores.exp() ** (1 / 2.5)
    by_head = powered / powered.sum(-1, keepdim=True)
    torch.testing.assert_close(attention_map(scores, 2.5), by_head.mean(1))
    assert not torch.allclose(attention_map(scores, 2.5), attention_map(scores))


def test_new_attention_has_xavier_weights_and_zero_biases() -> None:
    torch.manual_seed(0)
    attention = Attention(32, 4, 0.0)
    assert not attention.in_bias.any()
    assert not attention.out_projection.bias.any()
    for weight, fan_out in ((attention.in_projection, 96), (attention.out_projection.weight, 32)):
        bound = math.sqrt(6 / (32 + fan_out))
        assert 0.98 * bound < weight.abs().max() <= bound


def test_attention_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    attention = Attention(WIDTH, HEADS, dropout=0.5).double()
    query, source = make_pair(4, 5)
    tried = attention.project(query, source, None)
    assert not torch.equal(attention(*tried), attention(*tried))
    attention.eval()
    torch.testing.assert_close(attention(*tried), slow_attention(attention, query, source, False)[0])


# --- the stack


@pytest.mark.parametrize(("width", "heads", "layers"), [(8, 2, 1), (64, 8, 4), (80, 8, 3), (40, 5, 2)])
def test_a_stack_has_the_parameters_of_the_formula(width: int, heads: int, layers: int) -> None:
    stack = Stack(width, heads, layers, Dropout(), mask=None)
    expected = layers * (12 * width**2 + 13 * width) + 2 * width
    assert sum(p.numel() for p in stack.parameters()) == expected


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (3, 5), (5, 2)])
def test_a_stack_equals_the_slow_one_in_value_and_gradient(queries: int, keys: int, masked: bool) -> None:
    stack = make_stack(masked=masked, lengths=(queries, keys))
    query, source = make_pair(queries, keys)
    output, tapped = stack(*embed(query, source), taps=Taps(scores=True, attended=True))
    slow, scores, attended = slow_stack(stack, query, source)
    close = {"atol": 2e-5, "rtol": 1e-5}  # the fast positions are computed in float32
    torch.testing.assert_close(output, slow, **close)
    torch.testing.assert_close(tapped.scores, scores, **close)
    torch.testing.assert_close(tapped.attended, attended, **close)
    for fast, expected in zip(
        gradients(output, stack, query, source), gradients(slow, stack, query, source), strict=True
    ):
        torch.testing.assert_close(fast, expected, atol=2e-4, rtol=1e-4)


def test_padding_gets_no_position() -> None:
    stack = make_stack(layers=1)
    query, source = (x.detach().clone() for x in make_pair(4, 5))
    query[:, :2] = 0.0
    source[0, :3] = 0.0
    source[1, 1, 0] = 0.0  # a first channel of exactly 0 is enough, MulT's rule
    output, _ = stack(*embed(query, source))
    torch.testing.assert_close(output, slow_stack(stack, query, source)[0], atol=2e-5, rtol=1e-5)
    embedded = Embedding(5, WIDTH)(source)
    assert not embedded[0, :3].any()
    torch.testing.assert_close(embedded[1, 1], math.sqrt(WIDTH) * source[1, 1])


def test_keys_of_every_layer_come_from_the_first_source_embedding_also_in_self_attention() -> None:
    stack = make_stack(layers=3)
    sequence, _ = make_pair(4, 4)
    seen: list[Tensor] = []
    for layer in stack.layers:
        layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    output, _ = stack(*embed(sequence, sequence))
    embedded = math.sqrt(WIDTH) * sequence + slow_positions(sequence)
    assert len(seen) == 3
    for keys in seen:
        torch.testing.assert_close(keys, embedded, atol=2e-6, rtol=0)
    torch.testing.assert_close(output, slow_stack(stack, sequence, sequence)[0], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("last_only", [False, True])
def test_updated_keys_follow_x_from_layer_to_layer(last_only: bool, masked: bool) -> None:
    stack = make_stack(layers=3, masked=masked, lengths=(4, 4), updated=True)
    sequence, _ = make_pair(4, 4)
    taps = Taps(scores=True, attended=True)
    output, tapped = stack(*embed(sequence, sequence), last_only=last_only, taps=taps)
    slow, scores, attended = slow_stack(stack, sequence, sequence, updated=True)
    slow = slow[:, -1:] if last_only else slow
    close = {"atol": 2e-5, "rtol": 1e-5}  # the fast positions are computed in float32
    torch.testing.assert_close(output, slow, **close)
    torch.testing.assert_close(tapped.scores, scores, **close)
    torch.testing.assert_close(tapped.attended, attended, **close)
    torch.testing.assert_close(vars(stack.tap(*embed(sequence, sequence), taps)), vars(tapped), atol=1e-12, rtol=1e-12)
    for fast, expected in zip(gradients(output, stack, sequence), gradients(slow, stack, sequence), strict=True):
        torch.testing.assert_close(fast, expected, atol=2e-4, rtol=1e-4)
    fixed = make_stack(layers=3, masked=masked, lengths=(4, 4))(*embed(sequence, sequence), last_only=last_only)[0]
    assert not torch.allclose(output, fixed)


def test_in_one_layer_updated_keys_are_fixed_ones_and_share_the_querys_embedding_dropout() -> None:
    sequence, _ = make_pair(4, 4)
    fixed, updated = (make_stack(layers=1, updated=updated) for updated in (False, True))
    torch.testing.assert_close(fixed(*embed(sequence, sequence))[0], updated(*embed(sequence, sequence))[0])
    seen: list[Tensor] = []
    stack = make_stack(layers=1, updated=True, embedding=0.5).train()
    stack.layers[0].register_forward_pre_hook(lambda _, arguments: seen.extend(arguments[:2]))
    stack(*embed(sequence, sequence))
    assert torch.equal(*seen)
    assert (seen[0] == 0).any()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "taps", [None, Taps(scores=True), Taps(attended=True), Taps(scores=True, attended=True)], ids=str
)
@pytest.mark.parametrize("layers", [1, 3])
def test_last_only_is_exactly_the_last_step_in_value_and_gradient(layers: int, taps: Taps | None, masked: bool) -> None:
    stack = make_stack(layers=layers, masked=masked)
    query, source = make_pair(4, 5)
    whole, seen = stack(*embed(query, source), taps=taps)
    last, seen_too = stack(*embed(query, source), last_only=True, taps=taps)
    assert last.shape == (BATCH, 1, WIDTH)
    torch.testing.assert_close(last, whole[:, -1:], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(vars(seen_too), vars(seen), atol=1e-12, rtol=1e-12)
    for fast, expected in zip(
        gradients(last, stack, query, source), gradients(whole[:, -1:], stack, query, source), strict=True
    ):
        torch.testing.assert_close(fast, expected, atol=1e-11, rtol=1e-11)


def test_last_only_computes_one_query_of_the_last_layer_and_all_of_the_others() -> None:
    stack = make_stack(layers=3)
    rows: list[int] = []
    for layer in stack.layers:
        assert isinstance(layer, Layer)
        layer.up.register_forward_hook(lambda module, arguments, output: rows.append(output.shape[1]))
    stack(*embed(*make_pair(4, 5)), last_only=True)
    assert rows == [4, 4, 1]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "taps",
    [
        Taps(scores=True),
        Taps(attended=True),
        Taps(scores=True, attended=True),
        Taps(scores=True, rows=torch.tensor([2, 0])),
    ],
    ids=["scores", "attended", "both", "rows"],
)
def test_the_cut_stack_sees_what_the_whole_one_sees(taps: Taps, masked: bool) -> None:
    stack = make_stack(masked=masked)
    query, source = make_pair(4, 5)
    _, whole = stack(*embed(query, source), taps=taps)
    cut = stack.tap(*embed(query, source), taps)
    assert len(cut.scores) == (3 if taps.scores else 0)
    assert len(cut.attended) == (3 if taps.attended else 0)
    torch.testing.assert_close(vars(cut), vars(whole), atol=0.0, rtol=0.0)


def test_the_cut_stack_leaves_out_the_last_feed_forward_and_for_scores_the_last_values() -> None:
    stack = make_stack(layers=2)
    ran: list[str] = []
    for number, layer in enumerate(stack.layers):
        assert isinstance(layer, Layer)
        layer.up.register_forward_hook(lambda *_, n=number: ran.append(f"up{n}"))
        layer.attention.register_forward_hook(lambda *_, n=number: ran.append(f"attention{n}"))
    stack.tap(*embed(*make_pair(4, 5)), Taps(scores=True))
    assert ran == ["attention0", "up0"]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("last_only", [False, True])
def test_tapping_rows_is_slicing_the_scores(last_only: bool, masked: bool) -> None:
    stack = make_stack(masked=masked)
    query, source = make_pair(4, 5)
    output, full = stack(*embed(query, source), taps=Taps(scores=True), last_only=last_only)
    for rows in ([3, 1], [0], [2, 0, 1, 3]):
        taps = Taps(scores=True, rows=torch.tensor(rows))
        same, sampled = stack(*embed(query, source), taps=taps, last_only=last_only)
        torch.testing.assert_close(sampled.scores, [s[:, :, rows] for s in full.scores], atol=1e-13, rtol=1e-13)
        torch.testing.assert_close(same, output, atol=0.0, rtol=0.0)


def test_tapping_does_not_change_the_output() -> None:
    stack = make_stack()
    pair = make_pair(4, 5)
    plain, nothing = stack(*embed(*pair))
    tapped, _ = stack(*embed(*pair), taps=Taps(scores=True, attended=True))
    torch.testing.assert_close(tapped, plain, atol=0.0, rtol=0.0)
    assert not nothing.scores
    assert not nothing.attended


def test_maps_and_features_are_tapped_before_dropout() -> None:
    stack = make_stack(layers=1, residual=0.5, relu=0.5, attention=0.0)
    pair = make_pair(4, 5)
    _, still = stack(*embed(*pair), taps=Taps(scores=True, attended=True))
    stack.train()
    torch.manual_seed(0)
    output, moving = stack(*embed(*pair), taps=Taps(scores=True, attended=True))
    torch.testing.assert_close(vars(moving), vars(still), atol=0.0, rtol=0.0)
    assert not torch.allclose(output, stack.eval()(*embed(*pair))[0])


def test_maps_are_tapped_before_dropout_on_attention_weights() -> None:
    stack = make_stack(layers=1, attention=0.5).train()
    torch.manual_seed(0)
    _, tapped = stack(*embed(*make_pair(4, 5)), taps=Taps(scores=True))
    rows = attention_map(tapped.scores[0]).sum(-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


@pytest.mark.parametrize("kind", ["embedding", "attention", "residual", "relu"])
def test_each_kind_of_dropout_acts_in_training_alone(kind: str) -> None:
    stack = make_stack(layers=2, **{kind: 0.5})
    pair = make_pair(4, 5)
    still = stack(*embed(*pair))[0]
    torch.testing.assert_close(stack(*embed(*pair))[0], still, atol=0.0, rtol=0.0)
    stack.train()
    torch.manual_seed(0)
    assert not torch.allclose(stack(*embed(*pair))[0], still)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rows", [None, torch.tensor([2, 0])], ids=["all", "rows"])
@pytest.mark.parametrize("last_only", [False, True])
def test_tapped_factors_multiply_to_the_scores(last_only: bool, rows: Tensor | None, masked: bool) -> None:
    stack = make_stack(masked=masked)
    pair = make_pair(4, 5)
    _, tapped = stack(*embed(*pair), taps=Taps(factors=True, scores=True, rows=rows), last_only=last_only)
    assert [factors.query.shape[2] for factors in tapped.factors] == [4 if rows is None else 2] * 3
    torch.testing.assert_close([factors.dense() for factors in tapped.factors], tapped.scores, atol=0.0, rtol=0.0)
    cut = stack.tap(*embed(*pair), Taps(factors=True, rows=rows))
    torch.testing.assert_close([factors.dense() for factors in cut.factors], tapped.scores, atol=0.0, rtol=0.0)


def test_some_samples_and_rows_of_scores_are_slices_of_them() -> None:
    stack = make_stack(masked=True)
    scores = stack.tap(*embed(*make_pair(4, 5)), Taps(factors=True)).factors[0]
    part = scores.samples(slice(0, 1)).rows(slice(1, 3)).dense(2.0)
    torch.testing.assert_close(part, scores.dense()[:1, :, 1:3] / 2)
