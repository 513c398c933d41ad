"""The product that every kernel begins with, and the functions of a score that they share."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["locate", "log1p_exp", "score_tile"]


@triton.jit
def locate(number, row_blocks, label_tiles, GROUP: tl.constexpr):
    """Row block and label tile of a program: `GROUP` row blocks at a time go over all label tiles."""
    group = number // (GROUP * label_tiles)
    first = group * GROUP
    size = min(row_blocks - first, GROUP)
    within = number - group * GROUP * label_tiles
    return first + within % size, within // size


@triton.jit
def score_tile(
    queries,
    labels,
    rows,
    places,
    row_mask,
    label_mask,
    depth,
    stride_qb,
    stride_qd,
    stride_zl,
    stride_zd,
    ROWS: tl.constexpr,
    LABELS: tl.constexpr,
    DEPTH: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Inner products of `rows` of queries with `places` of labels, float32 [ROWS, LABELS]; zero where masked."""
    dimensions = tl.arange(0, DEPTH)
    q_at = queries + rows.to(tl.int64)[:, None] * stride_qb + dimensions[None, :] * stride_qd
    z_at = labels + places.to(tl.int64)[None, :] * stride_zl + dimensions[:, None] * stride_zd
    scores = tl.zeros((ROWS, LABELS), dtype=tl.float32)
    for start in range(0, depth, DEPTH):
        inside = dimensions < depth - start
        q = tl.load(q_at, mask=row_mask[:, None] & inside[None, :], other=0.0)
        z = tl.load(z_at, mask=label_mask[None, :] & inside[:, None], other=0.0)
        if UPCAST:
            q, z = q.to(tl.float32), z.to(tl.float32)
        scores = tl.dot(q, z, scores, input_precision=PRECISION)
        q_at += DEPTH * stride_qd
        z_at += DEPTH * stride_zd
    return scores


@triton.jit
def log1p_exp(x):
    """log(1 + exp(x)), exact to rounding for small exp(x) too (Kahan's log1p)."""
    small = tl.exp(-tl.abs(x))
    one_more = 1.0 + small
    log1p = tl.where(one_more == 1.0, small, tl.log(one_more) * (small / (one_more - 1.0)))
    return tl.maximum(x, 0.0) + log1p
