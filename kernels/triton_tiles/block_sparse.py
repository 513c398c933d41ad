"""Product with a matrix that has some blocks only."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.triton_tiles.heuristics import dot_precision, product_columns, product_step, tile_shape

__all__ = ["block_sparse_matmul"]


@triton.jit
def _block_sparse_matmul(
    left,
    right,
    out,
    counts,
    blocks,
    height,
    depth,
    width,
    stride_lm,
    stride_lk,
    stride_rk,
    stride_rn,
    stride_om,
    stride_on,
    stride_blocks,
    ADD: tl.constexpr,
    ROWS: tl.constexpr,
    INNER: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    block = tl.program_id(0)
    rows = block * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_mask, column_mask = rows < height, columns < width
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for entry in range(0, tl.load(counts + block)):
        base = tl.load(blocks + block * stride_blocks + entry) * INNER
        for start in range(0, INNER, STEP):
            inner = base + start + tl.arange(0, STEP)
            inside = inner < depth
            a = tl.load(
                left + rows.to(tl.int64)[:, None] * stride_lm + inner.to(tl.int64)[None, :] * stride_lk,
                mask=row_mask[:, None] & inside[None, :],
                other=0.0,
            )
            b = tl.load(
                right + inner.to(tl.int64)[:, None] * stride_rk + columns[None, :] * stride_rn,
                mask=inside[:, None] & column_mask[None, :],
                other=0.0,
            )
            total = tl.dot(a, b, total, input_precision=PRECISION)
    at = out + rows.to(tl.int64)[:, None] * stride_om + columns[None, :] * stride_on
    mask = row_mask[:, None] & column_mask[None, :]
    if ADD:
        total += tl.load(at, mask=mask, other=0.0).to(tl.float32)
    tl.store(at, total.to(out.dtype.element_ty), mask=mask)


def block_sparse_matmul(
    left: Tensor, right: Tensor, out: Tensor, present: Tensor, block: tuple[int, int], *, add: bool
) -> None:
    """out [M, N] (+)= left [M, K] @ right [K, N], where only the blocks of `left` marked in `present` count.

    present: bool [M / block[0], K / block[1]], rounded up. Sums are float32, in one order.
    """
    if not out.numel():
        return
    rows, inner = block
    # Those that are present first, in their order; nothing here makes the processor wait for the GPU.
    numbers = present.to(torch.int8).argsort(dim=1, descending=True, stable=True).contiguous()
    columns = product_columns()
    grid = (len(present), triton.cdiv(out.shape[1], columns))
    _block_sparse_matmul[grid](
        left,
        right,
        out,
        present.sum(1),
        numbers,
        *left.shape,
        right.shape[1],
        *left.stride(),
        *right.stride(),
        *out.stride(),
        numbers.stride(0),
        ADD=add,
        ROWS=rows,
        INNER=inner,
        COLUMNS=columns,
        STEP=product_step(left.dtype),
        PRECISION=dot_precision(),
        num_warps=tile_shape(left.dtype).warps,
        num_stages=3,
    )
