"""The segment of every token."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["segment_bounds"]

BLOCK = 256
"""Tokens of a program."""


@triton.jit(do_not_specialize=["tokens", "segments", "halvings"])
def _bounds(offsets, bounds, tokens, segments, halvings, BLOCK: tl.constexpr):
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = token < tokens
    low = tl.zeros((BLOCK,), dtype=tl.int32)  # offsets[low] <= token < offsets[high]
    high = low + segments
    for _ in range(halvings):
        middle = (low + high) // 2
        after = tl.load(offsets + middle, mask=inside, other=0) <= token
        low = tl.where(after, middle, low)
        high = tl.where(after, high, middle)
    tl.store(bounds + token, tl.load(offsets + low, mask=inside, other=0), mask=inside)
    tl.store(bounds + tokens + token, tl.load(offsets + low + 1, mask=inside, other=0), mask=inside)


@torch.library.custom_op("xmc::segment_bounds", mutates_args=())
def segment_bounds(offsets: Tensor, tokens: int) -> Tensor:
    """First token of each token's segment, and the one after its last: int32 [2, T], of offsets int32 [n + 1], T > 0."""
    bounds = offsets.new_empty((2, tokens))
    segments = len(offsets) - 1
    grid = (triton.cdiv(tokens, BLOCK),)
    _bounds[grid](offsets.contiguous(), bounds, tokens, segments, segments.bit_length(), BLOCK=BLOCK)
    return bounds


@segment_bounds.register_fake
def _(offsets: Tensor, tokens: int) -> Tensor:
    return offsets.new_empty((2, tokens))
