"""Embeddings in eight bits: float8 e4m3, with one scale a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.triton_tiles.alignment import aligned

__all__ = ["eight_bit_rows"]

LARGEST = 448.0
"""The largest number of e4m3."""

ROWS, DEPTH = 8, 128
"""Rows that a program takes, and dimensions at once."""


@triton.jit
def _load_rows(matrix, rows, start, count, depth, stride, DEPTH: tl.constexpr):
    at = start + tl.arange(0, DEPTH)
    inside = (rows < count)[:, None] & (at < depth)[None, :]
    return tl.load(matrix + rows.to(tl.int64)[:, None] * stride + at[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _round_to_e4m3(x):
    """The nearest number of e4m3, still in float32, of |x| <= 448: three bits after the first, steps of 2^-9 below 2^-6."""
    power = (x.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    # 1.5 · 2^20 times the power of two of x: adding it leaves no place for bits behind the third, as addition rounds.
    large = tl.maximum(power, 0.015625) * 1572864.0
    return (x + large) - large


@triton.jit
def _eight_bit_rows(
    matrix, out, scales, count, depth, stride, stride_out, LARGEST: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    highest = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, depth, DEPTH):
        block = tl.abs(_load_rows(matrix, rows, start, count, depth, stride, DEPTH))
        # A NaN goes on into the scale, and so into every score of its row.
        block = tl.reduce(block, 1, _larger)
        highest = tl.maximum(highest, block, propagate_nan=tl.PropagateNan.ALL)
    scale = tl.where(highest == 0.0, 1.0, highest / LARGEST)
    tl.store(scales + rows, scale, mask=rows < count)
    for start in range(0, depth, DEPTH):
        block = _round_to_e4m3(_load_rows(matrix, rows, start, count, depth, stride, DEPTH) / scale[:, None])
        block = tl.minimum(tl.maximum(block, -LARGEST), LARGEST)
        at = start + tl.arange(0, DEPTH)
        inside = (rows < count)[:, None] & (at < depth)[None, :]
        place = out + rows.to(tl.int64)[:, None] * stride_out + at[None, :]
        tl.store(place, block.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _larger(left, right):
    return tl.maximum(left, right, propagate_nan=tl.PropagateNan.ALL)


def eight_bit_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [n, D] in float8 e4m3, rows aligned, and its scales, float32 [n]: row i is scale i times what it holds.

    The scale makes the largest entry of a row 448, so every entry is off by at most a 16th of itself, or 2^-10 · scale.
    """
    matrix = matrix if matrix.stride(1) == 1 else matrix.contiguous()
    out = aligned(torch.empty(matrix.shape, dtype=torch.float8_e4m3fn, device=matrix.device))
    scales = torch.empty(len(matrix), dtype=torch.float32, device=matrix.device)
    if matrix.numel():
        _eight_bit_rows[(triton.cdiv(len(matrix), ROWS),)](
            matrix,
            out,
            scales,
            *matrix.shape,
            matrix.stride(0),
            out.stride(0),
            LARGEST=LARGEST,
            ROWS=ROWS,
            DEPTH=DEPTH,
        )
    return out, scales
