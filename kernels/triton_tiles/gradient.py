"""Backward kernel: tiles of scores once more, turned into the gradient of each score, for some labels at a time."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.reductions import Reduction
from xmc.kernels.triton_tiles.buckets import Buckets
from xmc.kernels.triton_tiles.heuristics import TileShape, dot_precision
from xmc.kernels.triton_tiles.reductions import device_functions
from xmc.kernels.triton_tiles.scores import score_tile

__all__ = ["score_gradients"]


@triton.jit
def _score_gradients(
    queries,
    labels,
    bias,
    row_constant,
    row_gradient,
    positive_gradient,
    tile_blocks,
    tile_numbers,
    offsets,
    entry_rows,
    entry_columns,
    entry_slots,
    gradients,
    count,
    width,
    first_tile,
    depth,
    label_tiles,
    stride_qb,
    stride_qd,
    stride_zl,
    stride_zd,
    stride_gb,
    scale,
    slope,
    SCORE_GRADIENT: tl.constexpr,
    TAKES_POSITIVES: tl.constexpr,
    BIASED: tl.constexpr,
    ROWS: tl.constexpr,
    LABELS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    block = tl.load(tile_blocks + tl.program_id(0))
    tile = tl.load(tile_numbers + tl.program_id(0))
    rows = block * ROWS + tl.arange(0, ROWS)
    columns = tile * LABELS + tl.arange(0, LABELS)
    local = (tile - first_tile) * LABELS + tl.arange(0, LABELS)
    row_mask, label_mask = rows < count, local < width
    scores = score_tile(
        queries, labels, rows, local, row_mask, label_mask, depth,
        stride_qb, stride_qd, stride_zl, stride_zd, ROWS, LABELS, DEPTH, False, PRECISION,
    )  # fmt: skip
    scores *= scale
    if BIASED:
        scores += tl.load(bias + local, mask=label_mask, other=0.0).to(tl.float32)[None, :]
    constant = tl.load(row_constant + rows, mask=row_mask, other=0.0)
    score_gradient = SCORE_GRADIENT(scores, constant, slope)
    score_gradient *= tl.load(row_gradient + rows, mask=row_mask, other=0.0)[:, None]
    number = block * label_tiles + tile
    for entry in range(tl.load(offsets + number), tl.load(offsets + number + 1)):
        slot = tl.load(entry_slots + entry)
        hit = (rows == tl.load(entry_rows + entry))[:, None] & (columns == tl.load(entry_columns + entry))[None, :]
        # A positive's or excluded pair's exponential may overflow; it is overwritten, never multiplied.
        pair_gradient = tl.load(positive_gradient + slot, mask=slot >= 0, other=0.0)
        if TAKES_POSITIVES:
            pair_gradient = tl.where(slot < 0, 0.0, score_gradient + pair_gradient)
        score_gradient = tl.where(hit, pair_gradient, score_gradient)
    at = gradients + rows.to(tl.int64)[:, None] * stride_gb + local[None, :]
    tl.store(at, score_gradient.to(gradients.dtype.element_ty), mask=row_mask[:, None] & label_mask[None, :])


def score_gradients(
    queries: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    reduction: Reduction,
    scale: float,
    row_constant: Tensor,
    row_gradient: Tensor,
    positive_gradient: Tensor,
    buckets: Buckets,
    blocks: Tensor,
    tiles: Tensor,
    first_tile: int,
    out: Tensor,
    shape: TileShape,
) -> None:
    """Write dS of the tiles (blocks[i], tiles[i]) into `out` [B, C], whose labels begin at tile `first_tile`.

    labels [C, D] and bias [C] are those of `out`. row_constant [B]: the reduction's. row_gradient [B], positive_gradient
    [nnz]: incoming gradients.
    """
    if not len(blocks):
        return
    _score_gradients[(len(blocks),)](
        queries,
        labels,
        bias,
        row_constant,
        row_gradient,
        positive_gradient,
        blocks,
        tiles,
        buckets.offsets,
        buckets.rows,
        buckets.columns,
        buckets.slots,
        out,
        len(queries),
        len(labels),
        first_tile,
        queries.shape[1],
        buckets.label_tiles,
        *queries.stride(),
        *labels.stride(),
        out.stride(0),
        scale,
        reduction.slope,
        SCORE_GRADIENT=device_functions(reduction).score_gradient,
        TAKES_POSITIVES=reduction.takes_positives,
        BIASED=bias is not None,
        ROWS=shape.rows,
        LABELS=shape.labels,
        DEPTH=shape.depth,
        PRECISION=dot_precision(),
        num_warps=shape.warps,
        num_stages=shape.stages,
    )
