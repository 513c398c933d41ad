"""The best score of each group of labels: a product whose tiles become a few maxima of each row, and are never stored.

Labels are in blocks of 4·g, a block in four groups of g that interleave: group number p is those labels of block p // 4 whose
place in the block, divided by 2, leaves the remainder p % 4 when divided by 4. So it is in wgmma's layout of an accumulator
that all scores of a row and group are one thread's, and a maximum costs one instruction a score and no exchange.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.triton_tiles.masks import Masks, hide
from xmc.kernels.triton_tiles.product import Product
from xmc.kernels.triton_tiles.scores import locate, matrix, score_tile

__all__ = ["INTERLEAVED", "label_of", "multiplied_maxima", "product_maxima"]

INTERLEAVED = 4
"""Groups of one block, whose labels interleave."""
WARPS = 8
"""Warps of a program that takes maxima of stored products."""


@triton.jit
def label_of(group, member, SIZE: tl.constexpr):
    """Number of the label that is number `member` of a group of `SIZE`."""
    return group // 4 * (4 * SIZE) + member // 2 * 8 + group % 4 * 2 + member % 2


@triton.jit
def _larger(left, right):
    """The larger of two scores; NaN where either is NaN."""
    return tl.maximum(left, right, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _group_maxima(scores, ROWS: tl.constexpr, LABELS: tl.constexpr, SIZE: tl.constexpr):
    """The maxima [ROWS, LABELS / SIZE] of the groups of a tile, which has whole blocks; NaN for a group that has NaN.

    Halves are compared: a `tl.reduce` by the same function spills registers beside a mask, compiled for capability 9.0.
    """
    blocks: tl.constexpr = LABELS // (4 * SIZE)
    left, right = scores.reshape(ROWS, LABELS // 2, 2).split()
    best = _larger(left, right)
    for step in tl.static_range(0, 5):
        if SIZE >> step >= 4:
            left, right = best.reshape(ROWS, blocks * (SIZE >> step) // 4, 2, 4).permute(0, 1, 3, 2).split()
            best = _larger(left, right)
    return best.reshape(ROWS, LABELS // SIZE)


@triton.jit
def _store_maxima(
    scores, bias, words, index, maxima, block, tile, count, total, label_tiles,
    SIZE: tl.constexpr, BIASED: tl.constexpr, MASKED: tl.constexpr, ROWS: tl.constexpr, LABELS: tl.constexpr,
):  # fmt: skip
    """Store the group maxima of a tile's products once they are scores: with a bias, without hidden pairs.

    Past the last label, groups of the last block have scores of anything: to look at each score costs more than to look at
    these groups. Further blocks have maxima of -inf.
    """
    columns = tile * LABELS + tl.arange(0, LABELS)
    if BIASED:
        scores += tl.load(bias + columns, mask=columns < total, other=0.0).to(tl.float32)[None, :]
    scores = hide(scores, words, index, block * label_tiles + tile, ROWS, LABELS, MASKED)
    rows = block * ROWS + tl.arange(0, ROWS)
    groups = tile * (LABELS // SIZE) + tl.arange(0, LABELS // SIZE)
    has_labels = label_of(groups // 4 * 4, 0, SIZE) < total
    best = tl.where(has_labels[None, :], _group_maxima(scores, ROWS, LABELS, SIZE), float("-inf"))
    stride = label_tiles * (LABELS // SIZE)
    tl.store(maxima + rows.to(tl.int64)[:, None] * stride + groups[None, :], best, mask=(rows < count)[:, None])


@triton.jit
def _product_maxima(
    queries,
    labels,
    bias,
    words,
    index,
    maxima,
    count,
    total,
    depth,
    stride_q,
    stride_z,
    row_blocks,
    label_tiles,
    SIZE: tl.constexpr,
    BIASED: tl.constexpr,
    MASKED: tl.constexpr,
    DESCRIBED: tl.constexpr,
    ROWS: tl.constexpr,
    LABELS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    queries = matrix(queries, count, depth, stride_q, ROWS, DEPTH, DESCRIBED)
    labels = matrix(labels, total, depth, stride_z, LABELS, DEPTH, DESCRIBED)
    for number in tl.range(tl.program_id(0), row_blocks * label_tiles, tl.num_programs(0), flatten=True):
        block, tile = locate(number, row_blocks, label_tiles, GROUP)
        scores = score_tile(queries, labels, block, tile, depth, ROWS, LABELS, DEPTH, PRECISION)
        _store_maxima(
            scores, bias, words, index, maxima, block, tile, count, total, label_tiles,
            SIZE, BIASED, MASKED, ROWS, LABELS,
        )  # fmt: skip


def product_maxima(product: Product, bias: Tensor | None, masks: Masks | None, size: int) -> Tensor:
    """Maxima of all groups of `size` labels of a product, float32 [B, groups], in whole tiles.

    Past the last block that has labels they are -inf; if that is not whole, its groups may be anything from their maximum up,
    and NaN. 2·B·L·D flops. bias: [L]. masks: of pairs that are no group's. size: a power of two from 2 to a quarter of the
    labels of a tile.
    """
    maxima = _empty_maxima(product, size)
    product.launch(_product_maxima, bias=bias, **_arguments(maxima, bias, masks, size))
    return maxima


@triton.jit
def _tile_maxima(
    products, bias, words, index, maxima, first, count, total, stride_p, row_blocks, label_tiles,
    SIZE: tl.constexpr, BIASED: tl.constexpr, MASKED: tl.constexpr, ROWS: tl.constexpr, LABELS: tl.constexpr,
):  # fmt: skip
    block, within = tl.program_id(0) % row_blocks, tl.program_id(0) // row_blocks
    rows, columns = block * ROWS + tl.arange(0, ROWS), within * LABELS + tl.arange(0, LABELS)
    inside = (rows < count)[:, None] & (columns < total - first * LABELS)[None, :]
    scores = tl.load(
        products + rows.to(tl.int64)[:, None] * stride_p + columns[None, :], mask=inside, other=float("-inf")
    )
    tile = first + within
    _store_maxima(
        scores, bias, words, index, maxima, block, tile, count, total, label_tiles,
        SIZE, BIASED, MASKED, ROWS, LABELS,
    )  # fmt: skip


def multiplied_maxima(product: Product, bias: Tensor | None, masks: Masks | None, size: int, tile_bytes: int) -> Tensor:
    """The same by the vendor's product, in float32, of as many labels at a time as fit `tile_bytes`, but of a tile at least.

    Queries and labels may be of two dtypes, and of any strides: what is not float32 is converted with its labels' turn.
    """
    shape, count, device = product.shape, len(product.queries), product.queries.device
    maxima, queries = _empty_maxima(product, size), product.queries.float()
    converted = 0 if product.labels.dtype == torch.float32 else product.labels.shape[1]
    tiles = max(1, tile_bytes // (4 * shape.labels * max(1, count + converted)))
    buffer = torch.empty(count * min(tiles * shape.labels, len(product.labels)), device=device)
    for first in range(0, product.label_tiles, tiles):
        labels = product.part(first, tiles).labels.float()
        products = buffer[: count * len(labels)].view(count, len(labels))
        torch.mm(queries, labels.T, out=products)
        _tile_maxima[(product.row_blocks * -(-len(labels) // shape.labels),)](
            products,
            bias,
            first=first,
            count=count,
            total=len(product.labels),
            stride_p=products.stride(0),
            row_blocks=product.row_blocks,
            label_tiles=product.label_tiles,
            ROWS=shape.rows,
            LABELS=shape.labels,
            num_warps=WARPS,
            **_arguments(maxima, bias, masks, size),
        )
    return maxima


def _empty_maxima(product: Product, size: int) -> Tensor:
    groups = product.label_tiles * product.shape.labels // size
    return torch.empty((len(product.queries), groups), device=product.queries.device)


def _arguments(maxima: Tensor, bias: Tensor | None, masks: Masks | None, size: int) -> dict[str, object]:
    """What both kernels take beside their products."""
    return {
        "words": None if masks is None else masks.words,
        "index": None if masks is None else masks.index,
        "maxima": maxima,
        "SIZE": size,
        "BIASED": bias is not None,
        "MASKED": masks is not None,
    }
