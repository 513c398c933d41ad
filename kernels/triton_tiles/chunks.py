"""How many labels are taken at a time, so that what is held meanwhile fits the budget."""

from __future__ import annotations

import math

import torch

from xmc.kernels.reductions import Reduction
from xmc.kernels.triton_tiles.masks import mask_bytes
from xmc.kernels.triton_tiles.product import Product

__all__ = ["backward_chunks", "forward_chunks", "kept_tiles"]

Chunk = tuple[int, int]
"""(first tile, number of tiles)."""


def kept_tiles(product: Product, keep_bytes: int) -> int:
    """Number of label tiles, the first ones, whose weights fit `keep_bytes`, with the numbers they are relative to."""
    one = len(product.queries) * (product.shape.labels * product.queries.element_size() + 4)
    return min(product.label_tiles, keep_bytes // max(1, one))


def forward_chunks(product: Product, pairs: int, reduction: Reduction, tile_bytes: int, keeping: int) -> list[Chunk]:
    """Chunks of label tiles whose masks, for at most `pairs` pairs, and numbers of each row fit `tile_bytes`.

    keeping: number of tiles, the first ones, that share no chunk with others.
    """
    numbers = 4 * len(product.queries) * (1 if reduction.shift is None else 2)
    total = product.label_tiles
    most = total
    if total * numbers + mask_bytes(pairs, total * product.row_blocks, product) > tile_bytes:
        most = tile_bytes // (numbers + mask_bytes(pairs, product.row_blocks, product))
    return _cut(0, keeping, most, 1) + _cut(keeping, total, most, 1)


def backward_chunks(product: Product, dtype: torch.dtype, tile_bytes: int, keeping: int) -> list[Chunk]:
    """Chunks of label tiles whose gradients of scores, of this dtype, fit `tile_bytes`: as few as can be, of whole waves of
    programs.

    keeping: number of tiles, the first ones, that share no chunk with others.
    """
    one = max(1, len(product.queries) * dtype.itemsize * product.shape.labels)
    wave = product.machine.programs // math.gcd(product.machine.programs, max(1, product.row_blocks))
    most = tile_bytes // one
    return _cut(0, keeping, most, wave) + _cut(keeping, product.label_tiles, most, wave)


def _cut(start: int, stop: int, most: int, unit: int) -> list[Chunk]:
    """Tiles [start, stop), at most `most` a chunk (but one), as few chunks as that allows, of equal size.

    The size is a multiple of `unit` where that fits.
    """
    tiles, most = stop - start, max(1, most)
    if tiles <= 0:
        return []
    size = -(-tiles // -(-tiles // most))
    rounded = -(-size // unit) * unit
    if rounded <= most:
        size = rounded
    elif unit <= most:
        size = most // unit * unit
    return [(first, min(size, stop - first)) for first in range(start, stop, size)]
