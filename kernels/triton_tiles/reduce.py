"""Forward kernel: a product whose tiles are reduced to one number a row, and never stored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.reductions import Reduction
from xmc.kernels.triton_tiles.buckets import Buckets
from xmc.kernels.triton_tiles.heuristics import TileShape, dot_precision
from xmc.kernels.triton_tiles.reductions import device_functions
from xmc.kernels.triton_tiles.scores import locate, score_tile

__all__ = ["TileSums", "reduce_scores"]


@triton.jit
def _reduce_scores(
    queries,
    labels,
    order,
    bias,
    shift,
    offsets,
    entry_rows,
    entry_columns,
    entry_slots,
    values,
    derivatives,
    positive_scores,
    count,
    total,
    depth,
    row_blocks,
    label_tiles,
    stride_qb,
    stride_qd,
    stride_zl,
    stride_zd,
    scale,
    slope,
    REDUCE_TILE: tl.constexpr,
    TAKES_POSITIVES: tl.constexpr,
    SHIFTED: tl.constexpr,
    ORDERED: tl.constexpr,
    BIASED: tl.constexpr,
    ROWS: tl.constexpr,
    LABELS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    block, tile = locate(tl.program_id(0), row_blocks, label_tiles, GROUP)
    rows = block * ROWS + tl.arange(0, ROWS)
    columns = tile * LABELS + tl.arange(0, LABELS)
    row_mask, label_mask = rows < count, columns < total
    places = columns
    if ORDERED:
        places = tl.load(order + columns, mask=label_mask, other=0)
    scores = score_tile(
        queries, labels, rows, places, row_mask, label_mask, depth,
        stride_qb, stride_qd, stride_zl, stride_zd, ROWS, LABELS, DEPTH, False, PRECISION,
    )  # fmt: skip
    scores *= scale
    if BIASED:
        scores += tl.load(bias + places, mask=label_mask, other=0.0).to(tl.float32)[None, :]
    number = block * label_tiles + tile
    for entry in range(tl.load(offsets + number), tl.load(offsets + number + 1)):
        slot = tl.load(entry_slots + entry)
        hit = (rows == tl.load(entry_rows + entry))[:, None] & (columns == tl.load(entry_columns + entry))[None, :]
        value = tl.sum(tl.sum(tl.where(hit, scores, 0.0), 1), 0)
        tl.store(positive_scores + slot, value, mask=slot >= 0)
        if TAKES_POSITIVES:
            hit = hit & (slot < 0)
        scores = tl.where(hit, float("-inf"), scores)
    scores = tl.where(label_mask[None, :], scores, float("-inf"))
    at = tile.to(tl.int64) * count + rows
    row_shift = tl.zeros((ROWS,), dtype=tl.float32)
    if SHIFTED:
        row_shift = tl.load(shift + rows, mask=row_mask, other=0.0)
    value, derivative = REDUCE_TILE(scores, row_shift, slope)
    tl.store(values + at, value, mask=row_mask)
    if SHIFTED:
        tl.store(derivatives + at, derivative, mask=row_mask)


@dataclass(frozen=True)
class TileSums:
    """Values and derivatives of each row in each label tile, float32 [label_tiles, B], and the positives' scores [nnz]."""

    values: Tensor
    derivatives: Tensor | None
    positive_scores: Tensor


def reduce_scores(
    queries: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    order: Tensor | None,
    reduction: Reduction,
    scale: float,
    buckets: Buckets,
    positives: int,
    shape: TileShape,
) -> TileSums:
    """Launch over all tiles; 2·B·L·D flops, and B·L / shape.labels numbers written."""
    count, total = len(queries), len(labels)
    values = queries.new_empty((buckets.label_tiles, count), dtype=torch.float32)
    derivatives = None if reduction.shift is None else torch.empty_like(values)
    positive_scores = queries.new_zeros(positives, dtype=torch.float32)
    tiles = buckets.row_blocks * buckets.label_tiles
    if tiles:
        shift = None if reduction.shift is None else reduction.shift.float().contiguous()
        _reduce_scores[(tiles,)](
            queries,
            labels,
            order,
            bias,
            shift,
            buckets.offsets,
            buckets.rows,
            buckets.columns,
            buckets.slots,
            values,
            derivatives,
            positive_scores,
            count,
            total,
            queries.shape[1],
            buckets.row_blocks,
            buckets.label_tiles,
            *queries.stride(),
            *labels.stride(),
            scale,
            reduction.slope,
            REDUCE_TILE=device_functions(reduction).reduce_tile,
            TAKES_POSITIVES=reduction.takes_positives,
            SHIFTED=shift is not None,
            ORDERED=order is not None,
            BIASED=bias is not None,
            ROWS=shape.rows,
            LABELS=shape.labels,
            DEPTH=shape.depth,
            GROUP=shape.group,
            PRECISION=dot_precision(),
            num_warps=shape.warps,
            num_stages=shape.stages,
        )
    return TileSums(values, derivatives, positive_scores)
