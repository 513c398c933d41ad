"""What decides how a search by group maxima goes: the size of a group, and how many queries are done at a time."""

from __future__ import annotations

from dataclasses import dataclass

from xmc.kernels.triton_tiles.masks import mask_bytes
from xmc.kernels.triton_tiles.maxima import INTERLEAVED
from xmc.kernels.triton_tiles.product import Product
from xmc.kernels.triton_tiles.selection import selection_bytes

__all__ = ["SEARCH_BYTES", "SearchPlan"]

SEARCH_BYTES = 2**30
"""Largest size of all that a search holds beside its results, and where the vendor's product is used a tile of scores."""

SMALLEST_GROUP = 4
"""Groups of two would be as many numbers as half of all scores; the largest group is an eighth of the labels of a tile.

Compiled for capability 9.0, the product's kernel spills registers beside a bias with smaller groups, and with larger ones.
"""

MAXIMUM_BYTES = 8
"""What a maximum moves: 4 bytes are written by the product, and read by the selection, which looks at little else."""

CANDIDATE_BYTES = 64
"""What a candidate costs beside its embedding, as bytes moved: a key of 8 bytes is written, and ranked by torch.topk.

On an H100, torch.topk took 75e9 numbers of 4 bytes a second, so a key costs what 64 bytes cost if a key takes twice as long
and the gathering kernel reads 2.4e12 bytes a second. Both ifs are assumed: neither has been measured.
"""


@dataclass(frozen=True)
class SearchPlan:
    """Groups of `size` labels, `groups` of them a row, whose `kept` first hold the k best labels.

    rows: number of queries that are done at a time.
    """

    size: int
    groups: int
    kept: int
    rows: int

    @classmethod
    def of(cls, product: Product, k: int, pairs: int) -> SearchPlan:
        """The plan that moves the fewest bytes; `pairs` is the number of excluded ones.

        A size g costs L/g maxima a query, (k + 3)·g or (k + 7)·g candidates, and all labels once for every block of
        queries. With 1.31M labels of 768 dimensions in bfloat16, that is g = 8 for 1,024 queries and k = 100.
        """
        sizes = [SMALLEST_GROUP]
        while sizes[-1] < product.shape.labels // 8:
            sizes.append(2 * sizes[-1])
        return min((cls.with_size(product, k, pairs, size) for size in sizes), key=lambda plan: plan._moved(product))

    @classmethod
    def with_size(cls, product: Product, k: int, pairs: int, size: int) -> SearchPlan:
        """The plan with groups of that size, a power of two from 2 to a quarter of the labels of a tile."""
        groups = product.label_tiles * product.shape.labels // size
        ragged = INTERLEAVED if len(product.labels) % (INTERLEAVED * size) else 0
        kept = min(k + INTERLEAVED - 1 + ragged, groups)
        maxima = 0 if kept == groups else 4 * groups + selection_bytes(groups, kept)
        masks = -(-mask_bytes(pairs, product.label_tiles, product) // product.shape.rows)
        row = max(1, maxima + 8 * kept * size + 32 * k + masks)
        most = max(1, SEARCH_BYTES // row)
        unit = product.shape.rows if most >= product.shape.rows else 1
        blocks = -(-len(product.queries) // (most // unit * unit))
        return cls(size, groups, kept, max(1, -(-len(product.queries) // (max(1, blocks) * unit)) * unit))

    @property
    def searches_all(self) -> bool:
        """Whether all groups are kept, so that their maxima are of no use."""
        return self.kept == self.groups

    def _moved(self, product: Product) -> int:
        """Bytes that are moved, beside what all plans move."""
        queries, width = len(product.queries), product.labels.shape[1] * product.labels.element_size()
        maxima = 0 if self.searches_all else queries * self.groups * MAXIMUM_BYTES
        candidates = queries * self.kept * self.size * (width + CANDIDATE_BYTES)
        return maxima + candidates + -(-queries // self.rows) * len(product.labels) * width
