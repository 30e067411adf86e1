"""Triton kernels for attention maps that are a mean over heads, and for the gradient through them.

Nothing of size heads x rows x keys is written: a head's probabilities are made where they are used, and again where
they are used again, from queries and keys (both narrow) and the logarithm of each row's normaliser. Sums are in
float32. There are no atomics and no autotuning: each element has one writer, which adds in a fixed order in blocks of a
fixed size, so the same inputs give the same bits.

All tensors are contiguous: `query` (samples, heads, rows, width), divided by sqrt(width) temperature; `key` (samples,
heads, keys, width); `normaliser` and `expected` (samples, heads, rows); `mean` and `outer` (samples, rows, keys);
`mask` (rows, keys), not 0 where a key is visible, or None if all are. A program has a block of ROWS rows, or of KEYS
keys, and goes over blocks of the other. WIDTH holds a whole head: columns beyond `width` are 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

SIZES = ("heads", "rows", "keys", "width")
"""Numbers for which no separate binary is built, so that tiles of all sizes share one."""


@triton.jit
def _addresses(
    base: tl.tensor, first: tl.tensor, count: int, width: int, SIZE: tl.constexpr, WIDTH: tl.constexpr
) -> tl.tensor:
    """Addresses of the vectors (SIZE, WIDTH) from `first` on in a head's (count, width), and which of them exist."""
    number, column = first + tl.arange(0, SIZE)[:, None], tl.arange(0, WIDTH)[None, :]
    return base + number * width + column, (number < count) & (column < width)


@triton.jit
def _vectors(
    base: tl.tensor, first: tl.tensor, count: int, width: int, SIZE: tl.constexpr, WIDTH: tl.constexpr
) -> tl.tensor:
    """The vectors (SIZE, WIDTH) from `first` on of a head's (count, width), 0 beyond the last."""
    addresses, exist = _addresses(base, first, count, width, SIZE, WIDTH)
    return tl.load(addresses, mask=exist, other=0.0)


@triton.jit
def _cells(
    base: tl.tensor, first: tl.tensor, start: tl.tensor, rows: int, keys: int, ROWS: tl.constexpr, KEYS: tl.constexpr
) -> tl.tensor:
    """Addresses of the cells (ROWS, KEYS) from (first, start) on in a map (rows, keys), and which of them exist."""
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, KEYS)[None, :]
    corner = base + tl.cast(first, tl.int64) * keys + start
    return corner + row * keys + column, (first + row < rows) & (start + column < keys)


@triton.jit
def _scores(
    q: tl.tensor,
    k: tl.tensor,
    mask: tl.tensor,
    first: tl.tensor,
    start: tl.tensor,
    rows: int,
    keys: int,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Scores (ROWS, KEYS) of a block of queries on one of keys; -inf where hidden and beyond the last key."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    visible = (start + tl.arange(0, KEYS) < keys)[None, :]
    if mask is not None:
        cells, exist = _cells(mask, first, start, rows, keys, ROWS, KEYS)
        visible = visible & (tl.load(cells, mask=exist, other=1) != 0)
    return tl.where(visible, scores, float("-inf"))


@triton.jit(do_not_specialize=SIZES)
def log_normaliser(
    query: tl.tensor,
    key: tl.tensor,
    mask: tl.tensor,
    normaliser: tl.tensor,
    heads: int,
    rows: int,
    keys: int,
    width: int,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Write normaliser = log sum over keys exp s; grid (samples heads, blocks of rows)."""
    head, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * ROWS
    row = first + tl.arange(0, ROWS)
    q = _vectors(query + head * rows * width, first, rows, width, ROWS, WIDTH)
    largest, total = tl.full([ROWS], float("-inf"), tl.float32), tl.zeros([ROWS], tl.float32)
    for start in range(0, keys, KEYS):
        k = _vectors(key + head * keys * width, start, keys, width, KEYS, WIDTH)
        s = _scores(q, k, mask, first, start, rows, keys, ROWS, KEYS, PRECISION)
        new = tl.maximum(largest, tl.max(s, 1))
        # A row may see nothing of the first blocks, and -inf less -inf would be NaN.
        shift = tl.where(new == float("-inf"), 0.0, new)
        total = total * tl.exp(largest - shift) + tl.sum(tl.exp(s - shift[:, None]), 1)
        largest = new
    # A row that sees no key gets -inf here and so probabilities of NaN, as from torch's softmax.
    tl.store(normaliser + head * rows + row, largest + tl.log(total), mask=row < rows)


@triton.jit(do_not_specialize=SIZES)
def mean_map(
    query: tl.tensor,
    key: tl.tensor,
    mask: tl.tensor,
    normaliser: tl.tensor,
    mean: tl.tensor,
    heads: int,
    rows: int,
    keys: int,
    width: int,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Write mean = mean over heads of exp(s - normaliser); grid (samples, blocks of rows, blocks of keys)."""
    sample, first, start = tl.program_id(0).to(tl.int64), tl.program_id(1) * ROWS, tl.program_id(2) * KEYS
    row = first + tl.arange(0, ROWS)
    total = tl.zeros([ROWS, KEYS], tl.float32)
    for head in range(sample * heads, (sample + 1) * heads):
        q = _vectors(query + head * rows * width, first, rows, width, ROWS, WIDTH)
        k = _vectors(key + head * keys * width, start, keys, width, KEYS, WIDTH)
        s = _scores(q, k, mask, first, start, rows, keys, ROWS, KEYS, PRECISION)
        total += tl.exp(s - tl.load(normaliser + head * rows + row, mask=row < rows, other=0.0)[:, None])
    cells, exist = _cells(mean + sample * rows * keys, first, start, rows, keys, ROWS, KEYS)
    tl.store(cells, total / heads, mask=exist)


@triton.jit(do_not_specialize=SIZES)
def query_gradient(
    query: tl.tensor,
    key: tl.tensor,
    mask: tl.tensor,
    normaliser: tl.tensor,
    outer: tl.tensor,
    expected: tl.tensor,
    gradient: tl.tensor,
    heads: int,
    rows: int,
    keys: int,
    width: int,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Write gradient = ds k, shaped as `query`, of outer = dL/d mean; grid (samples heads, blocks of rows).

    ds = p (g - e), where g = outer / heads and e = sum over keys p g, which is written to `expected`. e is known before
    ds is made, rather than put in afterwards (sum p g k less e sum p k): g may be large beside its differences.
    """
    head, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * ROWS
    row = first + tl.arange(0, ROWS)
    outer += head // heads * rows * keys
    q = _vectors(query + head * rows * width, first, rows, width, ROWS, WIDTH)
    z = tl.load(normaliser + head * rows + row, mask=row < rows, other=0.0)[:, None]
    e = tl.zeros([ROWS], tl.float32)
    for start in range(0, keys, KEYS):
        k = _vectors(key + head * keys * width, start, keys, width, KEYS, WIDTH)
        p = tl.exp(_scores(q, k, mask, first, start, rows, keys, ROWS, KEYS, PRECISION) - z)
        cells, exist = _cells(outer, first, start, rows, keys, ROWS, KEYS)
        e += tl.sum(p * (tl.load(cells, mask=exist, other=0.0) / heads), 1)
    tl.store(expected + head * rows + row, e, mask=row < rows)
    total = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(0, keys, KEYS):
        k = _vectors(key + head * keys * width, start, keys, width, KEYS, WIDTH)
        p = tl.exp(_scores(q, k, mask, first, start, rows, keys, ROWS, KEYS, PRECISION) - z)
        cells, exist = _cells(outer, first, start, rows, keys, ROWS, KEYS)
        ds = p * (tl.load(cells, mask=exist, other=0.0) / heads - e[:, None])
        total += tl.dot(ds, k, input_precision=PRECISION)
    addresses, exist = _addresses(gradient + head * rows * width, first, rows, width, ROWS, WIDTH)
    tl.store(addresses, total, mask=exist)


@triton.jit(do_not_specialize=SIZES)
def key_gradient(
    query: tl.tensor,
    key: tl.tensor,
    mask: tl.tensor,
    normaliser: tl.tensor,
    outer: tl.tensor,
    expected: tl.tensor,
    gradient: tl.tensor,
    heads: int,
    rows: int,
    keys: int,
    width: int,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Add (ds)^T query to gradient, shaped as `key`, after `query_gradient`; grid (samples heads, blocks of keys)."""
    head, start = tl.program_id(0).to(tl.int64), tl.program_id(1) * KEYS
    outer += head // heads * rows * keys
    k = _vectors(key + head * keys * width, start, keys, width, KEYS, WIDTH)
    total = tl.zeros([KEYS, WIDTH], tl.float32)
    for first in range(0, rows, ROWS):
        row = first + tl.arange(0, ROWS)
        q = _vectors(query + head * rows * width, first, rows, width, ROWS, WIDTH)
        # Beyond the last row outer and e are 0, and so is ds.
        z = tl.load(normaliser + head * rows + row, mask=row < rows, other=0.0)[:, None]
        e = tl.load(expected + head * rows + row, mask=row < rows, other=0.0)[:, None]
        p = tl.exp(_scores(q, k, mask, first, start, rows, keys, ROWS, KEYS, PRECISION) - z)
        cells, exist = _cells(outer, first, start, rows, keys, ROWS, KEYS)
        ds = p * (tl.load(cells, mask=exist, other=0.0) / heads - e)
        total += tl.dot(tl.trans(ds), q, input_precision=PRECISION)
    addresses, exist = _addresses(gradient + head * keys * width, start, keys, width, KEYS, WIDTH)
    tl.store(addresses, tl.load(addresses, mask=exist, other=0.0) + total, mask=exist)
