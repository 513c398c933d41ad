"""Weights of scores that the forward pass kept, turned into gradients without their product."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.triton_tiles.product import Product

__all__ = ["kept_gradients"]

ROWS, COLUMNS = 32, 128
"""Shape of the blocks that a program takes; a divisor of a tile's labels, but in the interpreter's small tiles."""


@triton.jit
def _kept_gradients(
    weights, values, row_constant, row_gradient, gradients, count, width, stride_k, stride_g,
    LOGARITHMIC: tl.constexpr, LABELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_mask = rows < count
    factor = tl.load(row_gradient + rows, mask=row_mask, other=0.0)
    if LOGARITHMIC:
        tile = tl.program_id(1) * COLUMNS // LABELS
        value = tl.load(values + tile.to(tl.int64) * count + rows, mask=row_mask, other=float("-inf"))
        factor *= tl.exp2(value - tl.load(row_constant + rows, mask=row_mask, other=0.0))
    mask = row_mask[:, None] & (columns < width)[None, :]
    kept = tl.load(weights + rows.to(tl.int64)[:, None] * stride_k + columns[None, :], mask=mask, other=0.0)
    result = kept.to(tl.float32) * factor[:, None]
    place = gradients + rows.to(tl.int64)[:, None] * stride_g + columns[None, :]
    tl.store(place, result.to(gradients.dtype.element_ty), mask=mask)


def kept_gradients(
    product: Product, kept: Tensor, values: Tensor | None, row_constant: Tensor, row_gradient: Tensor, out: Tensor
) -> None:
    """Write into `out` [B, C] what `score_gradients` would, from weights `kept` [B, C] by `reduce_scores`.

    values: [C / labels of a tile, B], the tiles' log-sum-exps that the weights are relative to; None for weights that are
    relative to nothing. row_constant, row_gradient: as in `score_gradients`.
    """
    if not out.numel():
        return
    columns = min(COLUMNS, product.shape.labels)
    _kept_gradients[(triton.cdiv(len(out), ROWS), triton.cdiv(out.shape[1], columns))](
        kept,
        values,
        row_constant,
        row_gradient,
        out,
        *out.shape,
        kept.stride(0),
        out.stride(0),
        LOGARITHMIC=values is not None,
        LABELS=product.shape.labels,
        ROWS=ROWS,
        COLUMNS=columns,
    )
