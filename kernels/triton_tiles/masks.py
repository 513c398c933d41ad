"""Pairs that a sum leaves out, as bits: one small mask for each tile that holds such a pair, read through an index."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.triton_tiles.pairs import Pairs
from xmc.kernels.triton_tiles.product import Product

__all__ = ["Masks", "hide", "is_hidden", "mask_bytes"]

BLOCK = 256
"""Pairs that a program of the small kernels takes."""


@triton.jit
def hide(scores, words, index, number, ROWS: tl.constexpr, LABELS: tl.constexpr, MASKED: tl.constexpr):
    """The scores [ROWS, LABELS] of a tile, -inf where its mask has a bit. No branch, and no loop that depends on data."""
    if MASKED:
        per_row: tl.constexpr = LABELS // 32
        mask = words + tl.load(index + number).to(tl.int64) * (ROWS * per_row)
        bits = tl.load(mask + tl.arange(0, ROWS)[:, None] * per_row + tl.arange(0, per_row)[None, :])
        bits = (bits[:, :, None] >> tl.arange(0, 32)[None, None, :]) & 1
        scores = tl.where(bits.reshape(ROWS, LABELS) != 0, float("-inf"), scores)
    return scores


@triton.jit
def is_hidden(words, index, row, label, inside, label_tiles, ROWS: tl.constexpr, LABELS: tl.constexpr):
    """The bits of single pairs, 0 or 1: `row` a number or a block, `label` a block; anything where not `inside`."""
    number = tl.load(index + (row // ROWS) * label_tiles + label // LABELS, mask=inside, other=0).to(tl.int64)
    word = words + (number * ROWS + row % ROWS) * (LABELS // 32) + label % LABELS // 32
    return (tl.load(word, mask=inside, other=0) >> (label % 32).to(tl.int32)) & 1


@triton.jit
def _tile_of(rows, columns, inside, label_tiles, ROWS: tl.constexpr, LABELS: tl.constexpr):
    """Number of the tile that each pair lies in; anything where not `inside`."""
    return tl.where(inside, (rows // ROWS) * label_tiles + columns // LABELS, 0)


@triton.jit
def _load_pairs(rows, columns, slots, first, pairs, total, KEEP_POSITIVES: tl.constexpr, BLOCK: tl.constexpr):
    """(number, row, column within these labels, whether the pair is to be masked here), [BLOCK] each."""
    numbers = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = numbers < pairs
    row = tl.load(rows + numbers, mask=inside, other=0)
    column = tl.load(columns + numbers, mask=inside, other=0) - first
    inside = inside & (column >= 0) & (column < total)
    if KEEP_POSITIVES:
        inside = inside & (tl.load(slots + numbers, mask=inside, other=0) < 0)
    return numbers, row, column, inside


@triton.jit
def _claim(
    rows, columns, slots, index, first, pairs, total, label_tiles,
    KEEP_POSITIVES: tl.constexpr, ROWS: tl.constexpr, LABELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A tile takes the mask numbered as its last pair, from 1 on."""
    numbers, row, column, inside = _load_pairs(rows, columns, slots, first, pairs, total, KEEP_POSITIVES, BLOCK)
    tile = _tile_of(row, column, inside, label_tiles, ROWS, LABELS)
    tl.atomic_max(index + tile, (numbers + 1).to(tl.int32), mask=inside, sem="relaxed")


@triton.jit
def _mark(
    rows, columns, slots, index, words, first, pairs, total, label_tiles,
    KEEP_POSITIVES: tl.constexpr, ROWS: tl.constexpr, LABELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Set each pair's bit in the mask of its tile."""
    _, row, column, inside = _load_pairs(rows, columns, slots, first, pairs, total, KEEP_POSITIVES, BLOCK)
    tile = _tile_of(row, column, inside, label_tiles, ROWS, LABELS)
    mask = words + tl.load(index + tile, mask=inside, other=0).to(tl.int64) * (ROWS * LABELS // 32)
    word = mask + (row % ROWS) * (LABELS // 32) + (column % LABELS) // 32
    tl.atomic_or(word, (column * 0 + 1).to(tl.int32) << (column % 32).to(tl.int32), mask=inside, sem="relaxed")


@dataclass(frozen=True)
class Masks:
    """Bits of the tiles of a product: tile (r, t) has the mask number index[r · label_tiles + t], 0 for the empty one.

    index: int32 [row_blocks · label_tiles]. words: int32 [masks, rows, labels / 32]; bit c of word w is label 32 w + c.
    """

    index: Tensor
    words: Tensor

    @classmethod
    def of(cls, pairs: Pairs, product: Product, first: int, *, keep_positives: bool) -> Masks:
        """Masks of the product's tiles, whose first label is number `first` of those that the pairs are about.

        keep_positives: mask only pairs that are left out of everything. Three or four small launches; nothing waits.
        """
        shape, tiles, device = product.shape, product.row_blocks * product.label_tiles, product.queries.device
        count = len(pairs.rows)
        words = torch.zeros((min(count, tiles) + 1) * shape.rows * shape.labels // 32, dtype=torch.int32, device=device)
        arguments = {
            "rows": pairs.rows, "columns": pairs.columns, "slots": pairs.slots, "first": first, "pairs": count,
            "total": len(product.labels), "label_tiles": product.label_tiles, "KEEP_POSITIVES": keep_positives,
            "ROWS": shape.rows, "LABELS": shape.labels, "BLOCK": BLOCK,
        }  # fmt: skip
        grid = (triton.cdiv(count, BLOCK),)
        if count < tiles:
            index = torch.zeros(tiles, dtype=torch.int32, device=device)
            _claim[grid](index=index, **arguments)
        else:
            index = torch.arange(1, tiles + 1, dtype=torch.int32, device=device)
        _mark[grid](index=index, words=words, **arguments)
        return cls(index, words)


def mask_bytes(pairs: int, tiles: int, product: Product) -> int:
    """Size of the masks of `tiles` tiles that hold at most `pairs` pairs, with their index, in bytes."""
    if not pairs:
        return 0
    return 4 * tiles + (min(pairs, tiles) + 1) * product.shape.rows * product.shape.labels // 8
