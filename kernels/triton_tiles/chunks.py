"""How many labels are taken at a time, so that what is held meanwhile fits the budget."""

from __future__ import annotations

import math

from xmc.kernels.reductions import Reduction
from xmc.kernels.triton_tiles.masks import mask_bytes
from xmc.kernels.triton_tiles.product import Product

__all__ = ["backward_chunks", "forward_chunks"]

Chunk = tuple[int, int]
"""(first tile, number of tiles)."""


def forward_chunks(product: Product, pairs: int, reduction: Reduction, tile_bytes: int) -> list[Chunk]:
    """Chunks of label tiles whose masks, for at most `pairs` pairs, and numbers of each row fit `tile_bytes`."""
    numbers = 4 * len(product.queries) * (1 if reduction.shift is None else 2)
    total = product.label_tiles
    if total * numbers + mask_bytes(pairs, total * product.row_blocks, product) <= tile_bytes:
        return [(0, total)] if total else []
    one = numbers + mask_bytes(pairs, product.row_blocks, product)
    return _cut(total, max(1, tile_bytes // one), 1)


def backward_chunks(product: Product, tile_bytes: int) -> list[Chunk]:
    """Chunks of label tiles whose gradients of scores fit `tile_bytes`: as few as can be, of whole waves of programs."""
    one = max(1, len(product.queries) * product.queries.element_size() * product.shape.labels)
    wave = product.machine.programs // math.gcd(product.machine.programs, max(1, product.row_blocks))
    return _cut(product.label_tiles, max(1, tile_bytes // one), wave)


def _cut(tiles: int, most: int, unit: int) -> list[Chunk]:
    """At most `most` tiles a chunk, as few chunks as that allows, of equal size; multiples of `unit` where that fits."""
    if not tiles:
        return []
    size = -(-tiles // -(-tiles // most))
    rounded = -(-size // unit) * unit
    if rounded <= most:
        size = rounded
    elif unit <= most:
        size = most // unit * unit
    return [(first, min(size, tiles - first)) for first in range(0, tiles, size)]
