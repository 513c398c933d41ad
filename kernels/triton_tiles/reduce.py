"""Forward kernel: a product whose tiles are reduced to one number a row, and never stored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.reductions import LogSumExp, Reduction, Sigmoid
from xmc.kernels.triton_tiles.buckets import Buckets
from xmc.kernels.triton_tiles.heuristics import TileShape, dot_precision
from xmc.kernels.triton_tiles.scores import locate, log1p_exp, score_tile

__all__ = ["LOGSUMEXP", "SIGMOID", "SOFTPLUS", "TileSums", "kind_of", "reduce_scores"]

LOGSUMEXP, SIGMOID, SOFTPLUS = 0, 1, 2


def kind_of(reduction: Reduction) -> int:
    """The number by which kernels know a reduction."""
    return LOGSUMEXP if isinstance(reduction, LogSumExp) else SIGMOID if isinstance(reduction, Sigmoid) else SOFTPLUS


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
    KIND: tl.constexpr,
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
        if KIND == 0:
            scores = tl.where(hit, float("-inf"), scores)
        else:
            scores = tl.where(hit & (slot < 0), float("-inf"), scores)
    scores = tl.where(label_mask[None, :], scores, float("-inf"))
    at = tile.to(tl.int64) * count + rows
    if KIND == 0:
        highest = tl.max(scores, 1)
        base = tl.where(highest == float("-inf"), 0.0, highest)
        tl.store(values + at, base + tl.log(tl.sum(tl.exp(scores - base[:, None]), 1)), mask=row_mask)
    elif KIND == 1:
        shifts = tl.load(shift + rows, mask=row_mask, other=0.0)
        sigmoids = tl.sigmoid(slope * (scores + shifts[:, None]))
        tl.store(values + at, tl.sum(sigmoids, 1), mask=row_mask)
        tl.store(derivatives + at, slope * tl.sum(sigmoids * (1.0 - sigmoids), 1), mask=row_mask)
    else:
        tl.store(values + at, tl.sum(log1p_exp(scores), 1), mask=row_mask)


@dataclass(frozen=True)
class TileSums:
    """What each row has in each label tile, float32 [label_tiles, B]: its log-sum-exp or sum, and the sum's derivative."""

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
    kind, count, total = kind_of(reduction), len(queries), len(labels)
    values = queries.new_empty((buckets.label_tiles, count), dtype=torch.float32)
    derivatives = torch.empty_like(values) if kind == SIGMOID else None
    positive_scores = queries.new_zeros(positives, dtype=torch.float32)
    tiles = buckets.row_blocks * buckets.label_tiles
    if tiles:
        shift = reduction.shift.float().contiguous() if isinstance(reduction, Sigmoid) else None
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
            reduction.slope if isinstance(reduction, Sigmoid) else 1.0,
            KIND=kind,
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
