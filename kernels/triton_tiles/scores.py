"""The product that every kernel begins with, and the functions of a score that they share."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["label_offsets", "locate", "log1p_exp2", "matrix", "scaled", "score_tile"]


@triton.jit
def locate(number, row_blocks, label_tiles, GROUP: tl.constexpr):
    """Row block and label tile of a tile's number: `GROUP` row blocks at a time go over all label tiles."""
    group = number // (GROUP * label_tiles)
    first = group * GROUP
    size = min(row_blocks - first, GROUP)
    within = number - group * GROUP * label_tiles
    return first + within % size, within // size


@triton.jit
def matrix(tensor, height, width, stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DESCRIBED: tl.constexpr):
    """A matrix to load [ROWS, COLUMNS] blocks of: `tensor` itself where it is a descriptor, else a view through its pointer.

    On GPUs without bulk copies the compiler turns the view's loads into plain ones, zero outside of the matrix like others.
    """
    if DESCRIBED:
        return tensor
    else:  # noqa: RET505
        return tl.make_tensor_descriptor(tensor, [height, width], [stride, 1], [ROWS, COLUMNS])


@triton.jit
def score_tile(
    queries,
    labels,
    block,
    tile,
    depth,
    ROWS: tl.constexpr,
    LABELS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Inner products of a block of queries with a tile of labels, float32 [ROWS, LABELS]; zero outside of the matrices."""
    scores = tl.zeros((ROWS, LABELS), dtype=tl.float32)
    for start in range(0, depth, DEPTH):
        q = queries.load([block * ROWS, start])
        z = labels.load([tile * LABELS, start])
        scores = tl.dot(q, z.T, scores, input_precision=PRECISION)
    return scores


@triton.jit
def scaled(
    scores, query_scales, label_scales, block, tile, count, total,
    ROWS: tl.constexpr, LABELS: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """The scores of a tile times the scales of its queries and labels, where there are any."""
    if SCALED:
        rows, columns = block * ROWS + tl.arange(0, ROWS), tile * LABELS + tl.arange(0, LABELS)
        scores *= tl.load(query_scales + rows, mask=rows < count, other=0.0)[:, None]
        scores *= tl.load(label_scales + columns, mask=columns < total, other=0.0)[None, :]
    return scores


@triton.jit
def label_offsets(bias, tile, total, unit, LABELS: tl.constexpr, BIASED: tl.constexpr):
    """What is added to the scores of a tile's labels, float32 [LABELS]: bias · unit, and -inf past the last label."""
    columns = tile * LABELS + tl.arange(0, LABELS)
    offsets = tl.zeros((LABELS,), dtype=tl.float32)
    if BIASED:
        offsets = tl.load(bias + columns, mask=columns < total, other=0.0).to(tl.float32) * unit
    return tl.where(columns < total, offsets, float("-inf"))


@triton.jit
def log1p_exp2(x):
    """log(1 + 2^x), to the rounding of float32 where 2^x is small too.

    log(1 + e) / e on [0, 1] is taken from a polynomial through ten Chebyshev nodes, 5e-9 off at most: cheaper than a
    logarithm and a division, and without the registers that these take.
    """
    e = tl.exp2(-tl.abs(x))
    p = 0.019542528316378593 - 0.0031760570127516985 * e
    p = p * e - 0.05637361481785774
    p = p * e + 0.10543623566627502
    p = p * e - 0.1526966691017151
    p = p * e + 0.1966327428817749
    p = p * e - 0.24951615929603577
    p = p * e + 0.33329710364341736
    p = p * e - 0.49999892711639404
    p = p * e + 1.0
    return tl.maximum(x, 0.0) * 0.6931471805599453 + p * e
