"""Forward kernel: a product whose tiles are reduced to one number a row, and never stored."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.reductions import Reduction
from xmc.kernels.triton_tiles.alignment import described
from xmc.kernels.triton_tiles.masks import Masks, hide
from xmc.kernels.triton_tiles.product import Product
from xmc.kernels.triton_tiles.reductions import device_functions
from xmc.kernels.triton_tiles.scores import label_offsets, locate, matrix, scaled, score_tile

__all__ = ["combine_tiles", "reduce_scores"]

COMBINED_ROWS, COMBINED_TILES = 32, 64
"""Shape of the blocks in which the numbers of all tiles are combined."""


@triton.jit
def _reduce_scores(
    queries,
    labels,
    query_scales,
    label_scales,
    bias,
    shift,
    scale,
    words,
    index,
    values,
    derivatives,
    weights,
    count,
    total,
    depth,
    stride_q,
    stride_z,
    stride_k,
    row_blocks,
    label_tiles,
    unit,
    REDUCE_TILE: tl.constexpr,
    SCORE_GRADIENT: tl.constexpr,
    LOGARITHMIC: tl.constexpr,
    KEPT: tl.constexpr,
    SHIFTED: tl.constexpr,
    BIASED: tl.constexpr,
    SCALED: tl.constexpr,
    MASKED: tl.constexpr,
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
    if KEPT:
        weights = matrix(weights, count, total, stride_k, ROWS, LABELS, DESCRIBED)
    for number in tl.range(tl.program_id(0), row_blocks * label_tiles, tl.num_programs(0), flatten=True):
        block, tile = locate(number, row_blocks, label_tiles, GROUP)
        scores = score_tile(queries, labels, block, tile, depth, ROWS, LABELS, DEPTH, PRECISION) * factor
        scores = scaled(scores, query_scales, label_scales, block, tile, count, total, ROWS, LABELS, SCALED)
        scores += label_offsets(bias, tile, total, unit, LABELS, BIASED)[None, :]
        scores = hide(scores, words, index, block * label_tiles + tile, ROWS, LABELS, MASKED)
        rows = block * ROWS + tl.arange(0, ROWS)
        row_shift = tl.zeros((ROWS,), dtype=tl.float32)
        if SHIFTED:
            row_shift = tl.load(shift + rows, mask=rows < count, other=0.0) * unit
        value, derivative = REDUCE_TILE(scores, row_shift)
        at = tile.to(tl.int64) * count + rows
        tl.store(values + at, value, mask=rows < count)
        if SHIFTED:
            tl.store(derivatives + at, derivative, mask=rows < count)
        if KEPT:
            constant = tl.where(value == float("-inf"), 0.0, value) if LOGARITHMIC else row_shift
            weights.store([block * ROWS, tile * LABELS], SCORE_GRADIENT(scores, constant).to(weights.dtype))


def reduce_scores(
    product: Product,
    bias: Tensor | None,
    scale: Tensor,
    reduction: Reduction,
    masks: Masks | None,
    kept: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Of each row in each tile its part of the value and of its derivative, float32 [label_tiles, B], in base 2.

    2·B·L·D flops. bias: [L]. scale: float32 [1], 1/τ. The derivative is None for a reduction without a shift.
    kept: [B, L], aligned; the weights f'(s_ij) / slope are written into it, those of a logarithm relative to the tile's value.
    """
    product = product if kept is None else product.storing(kept.dtype)
    shape, functions = product.shape, device_functions(reduction)
    values = product.queries.new_empty((product.label_tiles, len(product.queries)), dtype=torch.float32)
    derivatives = None if reduction.shift is None else torch.empty_like(values)
    product.launch(
        _reduce_scores,
        bias=bias,
        shift=None if reduction.shift is None else reduction.shift.float().contiguous(),
        scale=scale,
        words=None if masks is None else masks.words,
        index=None if masks is None else masks.index,
        values=values,
        derivatives=derivatives,
        weights=described(kept, shape.rows, shape.labels) if kept is not None and product.machine.bulk_copies else kept,
        stride_k=0 if kept is None else kept.stride(0),
        unit=reduction.unit,
        REDUCE_TILE=functions.reduce_tile,
        SCORE_GRADIENT=functions.score_gradient,
        LOGARITHMIC=reduction.logarithmic,
        KEPT=kept is not None,
        SHIFTED=derivatives is not None,
        BIASED=bias is not None,
        **product.scales,
        MASKED=masks is not None,
    )
    return values, derivatives


@triton.jit
def _combine_tiles(values, out, count, tiles, LOGARITHMS: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    highest = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    for first in range(0, tiles, TILES):
        numbers = first + tl.arange(0, TILES)
        inside = (numbers < tiles)[:, None] & (rows < count)[None, :]
        at = values + numbers.to(tl.int64)[:, None] * count + rows[None, :]
        if LOGARITHMS:
            block = tl.load(at, mask=inside, other=float("-inf"))
            higher = tl.maximum(highest, tl.max(block, 0))
            # A row without scores has no finite maximum; any finite shift keeps its exponentials at zero.
            base = tl.where(higher == float("-inf"), 0.0, higher)
            total = total * tl.exp2(highest - base) + tl.sum(tl.exp2(block - base[None, :]), 0)
            highest = higher
        else:
            total += tl.sum(tl.load(at, mask=inside, other=0.0), 0)
    if LOGARITHMS:
        total = tl.where(highest == float("-inf"), 0.0, highest) + tl.log2(total)
    tl.store(out + rows, total, mask=rows < count)


def combine_tiles(values: Tensor, *, logarithms: bool) -> Tensor:
    """The sum of float32 [tiles, B] over tiles, in one order, [B]; the log-sum-exp in base 2 with `logarithms`."""
    tiles, count = values.shape
    out = values.new_empty(count)
    if count:
        grid = (triton.cdiv(count, COMBINED_ROWS),)
        _combine_tiles[grid](values, out, count, tiles, LOGARITHMS=logarithms, ROWS=COMBINED_ROWS, TILES=COMBINED_TILES)
    return out
