"""Backward kernel: tiles of scores once more, turned into the gradient of each score, for some labels at a time."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.reductions import Reduction
from xmc.kernels.triton_tiles.alignment import described
from xmc.kernels.triton_tiles.product import Product
from xmc.kernels.triton_tiles.reductions import device_functions
from xmc.kernels.triton_tiles.scores import label_offsets, locate, matrix, scaled, score_tile

__all__ = ["score_gradients"]


@triton.jit
def _score_gradients(
    queries,
    labels,
    query_scales,
    label_scales,
    bias,
    scale,
    row_constant,
    row_gradient,
    gradients,
    count,
    total,
    depth,
    stride_q,
    stride_z,
    stride_g,
    row_blocks,
    label_tiles,
    unit,
    SCORE_GRADIENT: tl.constexpr,
    BIASED: tl.constexpr,
    SCALED: tl.constexpr,
    DESCRIBED: tl.constexpr,
    ROWS: tl.constexpr,
    LABELS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    factor = tl.load(scale) * unit
    queries = matrix(queries, count, depth, stride_q, ROWS, DEPTH, DESCRIBED)
    labels = matrix(labels, total, depth, stride_z, LABELS, DEPTH, DESCRIBED)
    gradients = matrix(gradients, count, total, stride_g, ROWS, LABELS, DESCRIBED)
    for number in tl.range(tl.program_id(0), row_blocks * label_tiles, tl.num_programs(0), flatten=True):
        block, tile = locate(number, row_blocks, label_tiles, GROUP)
        scores = score_tile(queries, labels, block, tile, depth, ROWS, LABELS, DEPTH, PRECISION) * factor
        scores = scaled(scores, query_scales, label_scales, block, tile, count, total, ROWS, LABELS, SCALED)
        scores += label_offsets(bias, tile, total, unit, LABELS, BIASED)[None, :]
        rows = block * ROWS + tl.arange(0, ROWS)
        constant = tl.load(row_constant + rows, mask=rows < count, other=0.0)
        incoming = tl.load(row_gradient + rows, mask=rows < count, other=0.0)
        result = SCORE_GRADIENT(scores, constant) * incoming[:, None]
        gradients.store([block * ROWS, tile * LABELS], result.to(gradients.dtype))


def score_gradients(
    product: Product,
    bias: Tensor | None,
    scale: Tensor,
    reduction: Reduction,
    row_constant: Tensor,
    row_gradient: Tensor,
    out: Tensor,
) -> None:
    """Write dS of all pairs of the product into `out` [B, L]; those of pairs that are not like all others are anything.

    bias: [L]. scale: float32 [1], 1/τ. row_constant, row_gradient: float32 [B], the reduction's constant in base 2 and the
    incoming gradient. out: aligned, see `Product`; 2·B·L·D flops.
    """
    if not out.numel():
        return
    product = product.storing(out.dtype)
    shape, described_ = product.shape, product.machine.bulk_copies
    product.launch(
        _score_gradients,
        bias=bias,
        scale=scale,
        row_constant=row_constant,
        row_gradient=row_gradient,
        gradients=described(out, shape.rows, shape.labels) if described_ else out,
        stride_g=out.stride(0),
        unit=reduction.unit,
        SCORE_GRADIENT=device_functions(reduction).score_gradient,
        BIASED=bias is not None,
        **product.scales,
    )
