"""Multi-head attention and the pre-LN encoder stack of MulT, with taps for distillation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.config import Dropout as Rates
from mmkd.models import fused_maps
from mmkd.models.dropout import Dropout
from mmkd.models.scores import Scores


@dataclass(frozen=True)
class Taps:
    """Request for intermediate results of each layer of some stacks.

    `factors`: the attention scores of the query rows `rows` (all if None) as a product, see `Scores`; `scores`: the
    same multiplied out, (B, heads, Tq, Tk), to inspect; `attended`: the attention module's output after its
    projection, (B, Tq, D), before dropout.

    A request changes no bit of the network's outputs and draws no random numbers.
    """

    factors: bool = False
    scores: bool = False
    attended: bool = False
    rows: Tensor | None = None

    @property
    def any(self) -> bool:
        """True if something is requested."""
        return self.factors or self.scores or self.attended


@dataclass
class Tapped:
    """Intermediate results, one entry per layer."""

    factors: list[Scores] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)
    attended: list[Tensor] = field(default_factory=list)


def attention_map(scores: Scores | Tensor, temperature: float = 1.0) -> Tensor:
    """Map (B, Tq, Tk) of scores (B, heads, Tq, Tk): softmax with a temperature in each head, mean over heads (A.1)."""
    if not isinstance(scores, Scores):
        return (scores / temperature).softmax(-1).mean(1)
    if scores.wants_gradient:
        return scores.dense(temperature).softmax(-1).mean(1)
    if fused_maps.use_kernels(scores.query):
        return fused_maps.mean_map(scores, temperature)[0]
    cells = math.prod(scores.query.shape[:3]) * scores.key.shape[2]
    space = scores.space
    if space is None or space.numel() < cells:
        space = scores.query.new_empty(cells)
    return scores.probabilities(temperature, space).mean(1)


def mult_mask(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """MulT's mask, True where query i may see key j: j - i <= |queries - keys|; (queries, keys)."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(abs(queries - keys))


def positions(steps: int, width: int) -> Tensor:
    """Sinusoidal positions (steps, width) from 1 on: sines in the first half of the channels, cosines in the second."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * -(math.log(10_000.0) / max(half - 1, 1)))
    angles = torch.arange(1, steps + 1)[:, None] * frequencies
    return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, width % 2))


class Embedding(nn.Module):
    """Sequences (B, T, D) of T = `steps` times sqrt(D), with sinusoidal positions.

    A step whose first channel is exactly 0 is padding and gets no position (MulT's rule).
    """

    positions: Tensor

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.register_buffer("positions", positions(steps, width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        real = (x[..., :1] != 0).to(x.dtype)
        return math.sqrt(x.shape[-1]) * x + real * self.positions[: x.shape[1]].to(x.dtype)


class Attention(nn.Module):
    """Multi-head attention, query (B, Tq, D) on source (B, Tk, D); joint in-projection, Xavier, zero biases."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_projection = nn.Parameter(torch.empty(3 * width, width))
        self.in_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_projection = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_projection)
        nn.init.xavier_uniform_(self.out_projection.weight)
        nn.init.zeros_(self.out_projection.bias)

    def project(self, query: Tensor, source: Tensor, mask: Tensor | None) -> tuple[Scores, Tensor]:
        """The scores of query on source and the values (B, heads, Tk, D / heads); `mask` (Tq, Tk): True where visible.

        Keys and values are one product.
        """
        width = query.shape[-1]
        query_weight, source_weight = self.in_projection.split([width, 2 * width])
        query_bias, source_bias = self.in_bias.split([width, 2 * width])
        key, value = F.linear(source, source_weight, source_bias).chunk(2, -1)
        scores = Scores(self._by_head(F.linear(query, query_weight, query_bias)), self._by_head(key), mask)
        return scores, self._by_head(value)

    def forward(self, scores: Scores, value: Tensor, *, drops: bool = True) -> Tensor:
        """The attended sequence (B, Tq, D) of scores and values from `project`, through the fused kernel.

        Attention weights are dropped in training if it `drops`.
        """
        dropout = self.dropout if self.training and drops else 0.0
        mixed: Tensor = F.scaled_dot_product_attention(
            scores.query, scores.key, value, attn_mask=scores.mask, dropout_p=dropout
        )
        joined: Tensor = self.out_projection(mixed.transpose(1, 2).flatten(2))
        return joined

    def _by_head(self, x: Tensor) -> Tensor:
        """(B, T, D) as (B, heads, T, D / heads)."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Layer(nn.Module):
    """x += drop(MHA(LN x, LN k, LN k)), one LN for all three; x += drop(W2 drop(relu(W1 LN x))), hidden 4 D."""

    def __init__(self, width: int, heads: int, dropout: Rates) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout.attention)
        self.attention_norm, self.forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.relu_dropout, self.residual_dropout = Dropout(dropout.relu), Dropout(dropout.residual)
        for linear in (self.up, self.down):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, x: Tensor, source: Tensor, mask: Tensor | None, tapped: Tapped, taps: Taps, last_query_only: bool
    ) -> Tensor:
        """One layer: x (B, Tq, D), source (B, Tk, D). With `last_query_only` the result is (B, 1, D), exactly."""
        query = self.attention_norm(x)
        keys = query if source is x else self.attention_norm(source)
        attended: Tensor | None = None
        if last_query_only:
            if taps.any:
                self.look(*self.attention.project(query, keys, mask), tapped, taps, drops=False)
            # Computed apart: as one row of many, it would differ in its last bits from that of a row without taps.
            x, query, mask = x[:, -1:], query[:, -1:], None if mask is None else mask[-1:]
        scores, value = self.attention.project(query, keys, mask)
        if not last_query_only:
            attended = self.look(scores, value, tapped, taps)
        if attended is None:
            attended = self.attention(scores, value)
        x = x + self.residual_dropout(attended)
        hidden = self.relu_dropout(self.up(self.forward_norm(x)).relu())
        output: Tensor = x + self.residual_dropout(self.down(hidden))
        return output

    def look(self, scores: Scores, value: Tensor, tapped: Tapped, taps: Taps, *, drops: bool = True) -> Tensor | None:
        """Add the requested results to `tapped`; return the attended sequence of scores and values if requested."""
        seen = scores if taps.rows is None else scores.rows(taps.rows)
        if taps.factors:
            tapped.factors.append(seen)
        if taps.scores:
            tapped.scores.append(seen.dense())
        if not taps.attended:
            return None
        attended: Tensor = self.attention(scores, value, drops=drops)
        tapped.attended.append(attended)
        return attended


class Stack(nn.Module):
    """Encoder stack Y<-X of width D, pre-LN: queries X, keys and values of every layer from Y.

    Both sequences come from an `Embedding` and get separate dropout, and the source embedding is never updated: MulT's
    crossmodal stack. With `updated`, for self-attention (X is Y), keys and values follow x from layer to layer: MulT's
    self-attention stack. `mask` (Tq, Tk) is True where a key is visible, None if all are. It has
    n (12 D^2 + 13 D) + 2 D parameters for n layers.
    """

    mask: Tensor | None

    def __init__(
        self, width: int, heads: int, layers: int, dropout: Rates, mask: Tensor | None, *, updated: bool = False
    ) -> None:
        super().__init__()
        self.width, self.updated = width, updated
        self.register_buffer("mask", mask, persistent=False)
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.embedding_dropout = Dropout(dropout.embedding)

    def forward(
        self, query: Tensor, source: Tensor, *, last_only: bool = False, taps: Taps | None = None
    ) -> tuple[Tensor, Tapped]:
        """Output (B, Tq, D), or (B, 1, D) of the last step with `last_only`, and the tapped results.

        `last_only` is exact and saves the last layer's other queries: nothing later reads them.
        """
        x, keys = self._embed(query, source)
        tapped, wanted = Tapped(), taps or Taps()
        for number, layer in enumerate(self.layers, 1):
            x = layer(
                x, x if keys is None else keys, self.mask, tapped, wanted, last_only and number == len(self.layers)
            )
        return self.norm(x), tapped

    def tap(self, query: Tensor, source: Tensor, taps: Taps) -> Tapped:
        """The tapped results alone: the last layer is cut after them, as nothing else of it is read."""
        x, keys = self._embed(query, source)
        tapped = Tapped()
        *before, last = self.layers
        for layer in before:
            x = layer(x, x if keys is None else keys, self.mask, tapped, taps, False)
        assert isinstance(last, Layer)
        query = last.attention_norm(x)
        source = query if keys is None else last.attention_norm(keys)
        last.look(*last.attention.project(query, source, self.mask), tapped, taps)
        return tapped

    def _embed(self, query: Tensor, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """Query and source with dropout; the source is None if it is x in each layer."""
        return self.embedding_dropout(query), None if self.updated else self.embedding_dropout(source)
