"""What the forward and the backward pass have in common: blocks of tokens, who sees whom, and what dropout leaves."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["kept_by_dropout", "load_block", "reach", "seen", "store_block"]


@triton.jit
def load_block(tensor, tokens, stop, stride, DEPTH: tl.constexpr, SIZE: tl.constexpr):
    """Vectors of tokens [tokens, SIZE]: zeros for those from `stop` on, and behind DEPTH dimensions."""
    at = tl.arange(0, SIZE)
    inside = (tokens < stop)[:, None] & (at < DEPTH)[None, :]
    return tl.load(tensor + tokens.to(tl.int64)[:, None] * stride + at[None, :], mask=inside, other=0.0)


@triton.jit
def store_block(tensor, block, tokens, stop, stride, DEPTH: tl.constexpr, SIZE: tl.constexpr):
    """The inverse of `load_block`, in the dtype of the tensor."""
    at = tl.arange(0, SIZE)
    inside = (tokens < stop)[:, None] & (at < DEPTH)[None, :]
    place = tensor + tokens.to(tl.int64)[:, None] * stride + at[None, :]
    tl.store(place, block.to(tensor.dtype.element_ty), mask=inside)


@triton.jit
def reach(bounds, first, last, tokens, window, BACK: tl.constexpr, AHEAD: tl.constexpr, WINDOWED: tl.constexpr):
    """The tokens, from one to another, that those from `first` to below `last` have to do with.

    They are those of the same segments; none before the first of them without BACK, none after the last without AHEAD, and
    none at a distance of the window.
    """
    start, stop = first, last
    if BACK:
        start = tl.load(bounds + first)
        if WINDOWED:
            start = tl.maximum(start, first - window + 1)
    if AHEAD:
        stop = tl.load(bounds + tokens + last - 1)
        if WINDOWED:
            stop = tl.minimum(stop, last + window - 1)
    return start, stop


@triton.jit
def seen(rows, keys, starts, ends, window, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr):
    """Whether tokens `rows`, of segments from `starts` to `ends`, see the tokens `keys`; all broadcast together."""
    mask = (keys >= starts) & (keys < ends)
    if CAUSAL:
        mask = mask & (keys <= rows)
    if WINDOWED:
        mask = mask & (tl.abs(rows - keys) < window)
    return mask


@triton.jit
def kept_by_dropout(seed, head, rows, keys, dropout):
    """Whether dropout leaves the probability with which `rows` look at `keys`; rows and keys are broadcast together.

    A number in [0, 1) from Philox, of seed, head and the places of both tokens in the run.
    """
    row, key = rows + keys * 0, keys + rows * 0
    number, _, _, _ = tl.philox(tl.load(seed), key, row, key * 0 + head, key * 0)
    return tl.random.uint_to_uniform_float(number) >= dropout
