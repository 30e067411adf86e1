"""Attention maps, and gradients through them, by the kernels of `_kernels` if they work here.

The numbers are those of torch's own operators except for rounding, without a tensor of a map's size for each head.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mmkd.models.scores import Scores

WIDEST = 256
"""Channels of a head beyond which blocks of queries and keys leave too little of a multiprocessor's memory."""

TOLERANCE = 5e-2
"""Of `_agree`, relative to the largest element: above what TF32 rounds, below what a mistake would do."""


def use_kernels(query: Tensor) -> bool:
    """True if kernels compute the maps of such queries: in float32 on a GPU on which they work.

    Without Triton, or the C compiler that it calls, torch's operators are used, and numbers differ by rounding.
    """
    width = query.shape[-1]
    return query.is_cuda and query.dtype == torch.float32 and width <= WIDEST and _agree(query.device, width)


def mean_map(scores: Scores, temperature: float) -> tuple[Tensor, Tensor]:
    """The map (B, Tq, Tk), see `attention_map`, and log sum exp of each row's scores (B, heads, Tq); no gradients."""
    from mmkd.models import _kernels

    (batch, heads, rows, _), keys = scores.query.shape, scores.key.shape[2]
    inputs, sizes = _inputs(scores, temperature), _sizes(scores)
    normaliser, mean = scores.query.new_empty(batch, heads, rows), scores.query.new_empty(batch, rows, keys)
    by_rows, by_keys = -(-rows // sizes["ROWS"]), -(-keys // sizes["KEYS"])
    with torch.cuda.device_of(mean):
        _kernels.log_normaliser[batch * heads, by_rows](*inputs, normaliser, **sizes)
        _kernels.mean_map[batch, by_rows, by_keys](*inputs, normaliser, mean, **sizes)
    return mean, normaliser


def gradients(
    scores: Scores, temperature: float, normaliser: Tensor, outer: Tensor, by_query: Tensor, by_key: Tensor
) -> None:
    """Write the gradient in queries to `by_query`, add that in keys to `by_key` (contiguous).

    `outer` (B, Tq, Tk) is the gradient in the map, `normaliser` what `mean_map` returned with the map.
    """
    from mmkd.models import _kernels

    batch, heads, rows, width = scores.query.shape
    inputs, sizes = _inputs(scores, temperature), _sizes(scores)
    inputs += (normaliser, outer.contiguous(), torch.empty_like(normaliser))
    made = scores.query.new_empty(batch, heads, rows, width)
    with torch.cuda.device_of(made):
        _kernels.query_gradient[batch * heads, -(-rows // sizes["ROWS"])](*inputs, made, **sizes)
        _kernels.key_gradient[batch * heads, -(-scores.key.shape[2] // sizes["KEYS"])](*inputs, by_key, **sizes)
    torch.mul(made, _scale(scores, temperature), out=by_query)


def _scale(scores: Scores, temperature: float) -> float:
    scale: float = scores.query.shape[-1] ** -0.5 / temperature
    return scale


def _inputs(scores: Scores, temperature: float) -> tuple[Tensor | None, ...]:
    """Queries, keys and mask as kernels read them: small copies, beside a map."""
    mask = None if scores.mask is None else scores.mask.contiguous()
    return (scores.query * _scale(scores, temperature)).contiguous(), scores.key.contiguous(), mask


def _sizes(scores: Scores) -> dict[str, Any]:
    """A kernel's arguments for the tensors' sizes and its blocks; see docs/performance.md."""
    (_, heads, rows, width), keys = scores.query.shape, scores.key.shape[2]
    return {"heads": heads, "rows": rows, "keys": keys, "width": width, **blocks(width, _tf32())}


def blocks(width: int, tf32: bool = False) -> dict[str, Any]:
    """Sizes of blocks, precision of products and launch options for heads of `width` channels."""
    padded = max(16, 1 << (width - 1).bit_length())  # a product of blocks needs 16
    return {
        "ROWS": 64 if padded <= 64 else 32,
        "KEYS": 32,
        "WIDTH": padded,
        "PRECISION": "tf32" if tf32 else "ieee",
        "num_warps": 8,
        "num_stages": 2,
    }


def _tf32() -> bool:
    """True if the user lets torch round the factors of float32 products."""
    # Older than torch 2.9: products are never rounded here. Its `allow_tf32` raises after the new setting was used.
    return getattr(torch.backends.cuda.matmul, "fp32_precision", "ieee") == "tf32"


@cache
def _agree(device: torch.device, width: int) -> bool:
    """True if kernels compile, run on the device and agree with torch's operators; if not, warn with the reason.

    Checked once per process and width of heads. Triton, its compiler, a C compiler, the driver and a directory for
    binaries take part, and kernels that are wrong on some GPU must not decide a result.
    """
    try:
        difference = _difference(device, width)
    except torch.OutOfMemoryError:
        raise  # says nothing about the kernels
    except Exception as error:  # each of the parts above raises other exceptions
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        if difference < TOLERANCE:
            return True
        reason = f"they differ from torch's operators by {difference:.1g}"
    print(f"warning: no Triton kernels for attention maps ({reason}): it is slower", file=sys.stderr, flush=True)
    return False


def _difference(device: torch.device, width: int) -> float:
    """The largest of map and gradients between kernels and torch, each relative to its largest element."""
    from mmkd.models.scores import Scores

    random = torch.Generator().manual_seed(0)  # a trial's own generator must not notice
    queries, keys = (torch.randn(2, 2, steps, width, generator=random).to(device) for steps in (70, 40))
    outer = torch.randn(2, 70, 40, generator=random).to(device)
    mask = torch.ones(70, 40, dtype=torch.bool, device=device).tril(10)
    with torch.enable_grad():
        query, key = queries.clone().requires_grad_(), keys.clone().requires_grad_()
        expected = Scores(query, key, mask).dense(0.5).softmax(-1).mean(1)
        by_query, by_key = torch.autograd.grad(expected, [query, key], outer)
    scores, made = Scores(queries, keys, mask), (torch.empty_like(queries), torch.zeros_like(keys))
    mean, normaliser = mean_map(scores, 0.5)
    gradients(scores, 0.5, normaliser, outer, *made)
    pairs = zip([mean, *made], [expected.detach(), by_query, by_key], strict=True)
    return float(torch.stack([(one - other).abs().max() / other.abs().max() for one, other in pairs]).max())
