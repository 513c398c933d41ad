"""Moments of blocks of labels, which soft top-k's search makes its curves of: the forward kernel, with far labels in a tile."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from xmc.kernels.problem import Problem
from xmc.kernels.triton_tiles.chunks import forward_chunks
from xmc.kernels.triton_tiles.masks import Masks, hide
from xmc.kernels.triton_tiles.pairs import Pairs
from xmc.kernels.triton_tiles.product import Product
from xmc.kernels.triton_tiles.scores import locate, matrix

__all__ = ["block_moments"]


TILES, NARROW = 256, 64
"""With fewer tiles than `TILES`, they are `NARROW` labels wide, and if there are still fewer, each is several blocks."""

BLOCKS = 1024
"""About how many these are."""

BLOCK_LABELS = 8
"""Labels of such a block at most."""


@triton.jit
def _moments(scores, shift, AXIS: tl.constexpr):
    """log2 Σ w and log2 Σ w² along the last axis, AXIS; w = σ(s + t), or 2^s where t is NaN. -inf without scores.

    Scores and shift, which is broadcast along the other axes, are in base 2, and σ(x) is 2^x / (1 + 2^x).
    """
    known = shift == shift
    shift = tl.where(known, shift, 0.0)
    highest = tl.max(scores, AXIS) + shift
    # Weights are in units of 2^base, which keeps the largest of a row between 1/2 and 1.
    base = tl.where(known, tl.minimum(highest, 0.0), highest)
    base = tl.where(highest == float("-inf"), 0.0, base)
    largest = tl.where(known, 115.0 - base, float("inf"))
    rate = tl.where(known, tl.exp2(tl.minimum(base, 0.0)), 0.0)
    weights = tl.exp2(tl.minimum(scores + tl.expand_dims(shift - base, AXIS), tl.expand_dims(largest, AXIS)))
    weights = weights / (1.0 + weights * tl.expand_dims(rate, AXIS))
    return base + tl.log2(tl.sum(weights, AXIS)), 2.0 * base + tl.log2(tl.sum(weights * weights, AXIS))


@triton.jit
def _block_moments(
    queries,
    labels,
    bias,
    shift,
    scale,
    words,
    index,
    values,
    seconds,
    count,
    total,
    depth,
    stride_q,
    stride_z,
    stride,
    row_blocks,
    label_tiles,
    unit,
    BLOCKS: tl.constexpr,
    BIASED: tl.constexpr,
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
    labels = matrix(labels, total, (label_tiles - 1) * stride_z + depth, stride, LABELS, DEPTH, DESCRIBED)
    columns = tl.arange(0, LABELS)
    for number in tl.range(tl.program_id(0), row_blocks * label_tiles, tl.num_programs(0), flatten=True):
        block, tile = locate(number, row_blocks, label_tiles, GROUP)
        scores = tl.zeros((ROWS, LABELS), dtype=tl.float32)
        for start in range(0, depth, DEPTH):
            # What is loaded of the label behind meets zeros of the queries.
            q = queries.load([block * ROWS, start])
            z = labels.load([0, tile * stride_z + start])
            scores = tl.dot(q, z.T, scores, input_precision=PRECISION)
        offsets = tl.zeros((LABELS,), dtype=tl.float32)
        if BIASED:
            offsets = tl.load(bias + tile * LABELS + columns, mask=columns < total, other=0.0).to(tl.float32) * unit
        scores = scores * factor + tl.where(columns < total, offsets, float("-inf"))[None, :]
        scores = hide(scores, words, index, block * label_tiles + tile, ROWS, LABELS, MASKED)
        rows = block * ROWS + tl.arange(0, ROWS)
        row_shift = tl.load(shift + rows, mask=rows < count, other=0.0) * unit
        at = tile.to(tl.int64) * BLOCKS * count + rows
        if BLOCKS == 1:
            value, second = _moments(scores, row_shift, 1)
            tl.store(values + at, value, mask=rows < count)
            tl.store(seconds + at, second, mask=rows < count)
        else:
            scores = scores.reshape(ROWS, BLOCKS, LABELS // BLOCKS)
            value, second = _moments(scores, row_shift[:, None], 2)
            each = at[:, None] + tl.arange(0, BLOCKS)[None, :] * count
            tl.store(values + each, value, mask=(rows < count)[:, None])
            tl.store(seconds + each, second, mask=(rows < count)[:, None])


def block_moments(problem: Problem, queries: Tensor, labels: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """See xmc.kernels.row_statistics.block_moments; 2·B·L·D flops.

    Tile t of n whole tiles of w labels is the labels t, t + n, t + 2 n ...: labels that are alike often stand together, and
    one number of a block that holds several of a query's best would hide them. Such a tile is a column of embeddings in the
    matrix [w, n·D] that the labels are too. Of the fewer than w labels that are left at the end, each is a block.
    """
    product, total = Product.of(queries, labels), len(labels)
    narrow = replace(product, shape=replace(product.shape, labels=min(NARROW, product.shape.labels)))
    if product.label_tiles < TILES:
        product = narrow
    width, last = product.shape.labels, narrow.shape.labels
    whole, blocks = total // width, _blocks(total, width)
    pairs = Pairs.of(problem)
    masked = len(pairs.rows) > pairs.positives
    spread = pairs.columns % max(whole, 1) * width + pairs.columns.div(max(whole, 1), rounding_mode="floor")
    columns = torch.where(pairs.columns < whole * width, spread, pairs.columns)
    pairs = Pairs(pairs.rows, columns, pairs.slots, pairs.positives)
    if bias is not None:
        bias = torch.cat([bias[: whole * width].view(width, whole).T.flatten(), bias[whole * width :]])
    rest = range(whole * width, total, last)
    found = product.queries.new_empty((2, whole * blocks + len(rest) * last, len(queries)), dtype=torch.float32)
    masks, part_bias, chunk_pairs = None, None, len(pairs.rows) if masked else 0
    for first, tiles in forward_chunks(product.part(0, whole), chunk_pairs, problem.reduction, problem.tile_bytes, 0):
        left, right = first * width, (first + tiles) * width
        if masked:
            masks = Masks.of(pairs, product.part(first, tiles), left, keep_positives=True)
        if bias is not None:
            part_bias = bias[left:right]
        into = found[:, first * blocks : (first + tiles) * blocks]
        _launch(problem, product, product.labels[first:], width, tiles, whole, part_bias, masks, into)
    for number, left in enumerate(rest):
        part = replace(narrow, labels=product.labels[left : left + last])
        if masked:
            masks = Masks.of(pairs, part, left, keep_positives=True)
        if bias is not None:
            part_bias = bias[left : left + last]
        into = found[:, whole * blocks + number * last :][:, :last]
        _launch(problem, part, part.labels, len(part.labels), 1, 1, part_bias, masks, into)
    natural = found.mul_(math.log(2))
    return natural[0], natural[1]


def _blocks(labels: int, width: int) -> int:
    """Blocks of a tile of `width` labels, a power of two."""
    if labels >= TILES * width:
        return 1
    size = 1
    while size < BLOCK_LABELS and size * BLOCKS < labels:
        size *= 2
    return width // size


def _launch(
    problem: Problem,
    product: Product,
    labels: Tensor,
    places: int,
    tiles: int,
    apart: int,
    bias: Tensor | None,
    masks: Masks | None,
    into: Tensor,
) -> None:
    """Tile t is the labels t, t + apart ..., `places` of them. bias: [tiles · places], by tile. into: [2, blocks, B]."""
    shape, reduction = product.shape, problem.reduction
    assert reduction.shift is not None
    columns = (
        _columns(labels, places, tiles, apart, shape.labels, shape.depth) if product.machine.bulk_copies else labels
    )
    product.launch(
        _block_moments,
        labels=columns,
        total=places,
        label_tiles=tiles,
        bias=bias,
        shift=reduction.shift.float().contiguous(),
        scale=problem.scale_on(labels.device),
        words=None if masks is None else masks.words,
        index=None if masks is None else masks.index,
        values=into[0],
        seconds=into[1],
        stride=apart * labels.stride(0),
        unit=reduction.unit,
        BLOCKS=into.shape[1] // tiles,
        BIASED=bias is not None,
        MASKED=masks is not None,
    )


def _columns(labels: Tensor, places: int, tiles: int, apart: int, rows: int, depth: int) -> TensorDescriptor:
    """A descriptor of the matrix whose columns are tiles: its row i is the labels i · apart ... beside each other."""
    stride = labels.stride(0)
    # The last label's row may end before the next one's would begin.
    width = (tiles - 1) * stride + labels.shape[1]
    return TensorDescriptor(labels, [places, width], [apart * stride, 1], [rows, depth])
