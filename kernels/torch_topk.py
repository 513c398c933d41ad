"""Top-k over tiles of scores in plain torch: what beats a query's k-th best so far is collected, and sorted out in bulk."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.positives import Positives

__all__ = ["DEFAULT_TILE_BYTES", "topk"]

DEFAULT_TILE_BYTES = 8 * 2**20
"""A tile that stays in a processor's cache is multiplied and searched faster than a larger one."""

SEGMENT = 64
"""Scores of a row that are passed over together."""


def topk(
    queries: Tensor,
    labels: Tensor,
    k: int,
    label_bias: Tensor | None,
    exclude: Positives | None,
    tile_bytes: int | None,
) -> tuple[Tensor, Tensor]:
    """See xmc.kernels.topk.topk_inner_product, which checks the arguments; k is at most L."""
    dtype = torch.promote_types(torch.promote_types(queries.dtype, labels.dtype), torch.float32)
    scores = torch.full((len(queries), k), -torch.inf, dtype=dtype, device=queries.device)
    indices = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    if k == 0 or not len(queries):
        return scores, indices
    budget = max(1, (DEFAULT_TILE_BYTES if tile_bytes is None else tile_bytes) // dtype.itemsize)
    height = min(len(queries), max(1, budget // min(len(labels), 2048)))
    width = budget // height
    if labels.dtype != dtype:  # the converted labels of a tile must fit the budget as well
        width = min(width, budget // max(1, labels.shape[1]))
    width = _whole_segments(max(1, min(width, len(labels))))
    buffer = queries.new_empty(height * width, dtype=dtype)
    for top in range(0, len(queries), height):
        rows = queries[top : top + height].to(dtype)
        excluded = None if exclude is None else _entries(exclude, top, top + len(rows))
        best = _Best(rows, k)
        for left in range(0, len(labels), width):
            tile_labels = labels[left : left + width].to(dtype)
            padded = _whole_segments(len(tile_labels))
            tile = buffer[: len(rows) * padded].view(len(rows), padded)
            tile[:, len(tile_labels) :] = -torch.inf
            torch.mm(rows, tile_labels.T, out=tile[:, : len(tile_labels)])
            if label_bias is not None:
                tile[:, : len(tile_labels)] += label_bias[left : left + width]
            if excluded is not None:
                inside = (excluded[1] >= left) & (excluded[1] < left + len(tile_labels))
                tile[excluded[0][inside], excluded[1][inside] - left] = -torch.inf
            best.add(tile, left)
        best.sort()
        scores[top : top + height], indices[top : top + height] = best.scores[:, :k], best.indices[:, :k]
    return scores, indices


class _Best:
    """The best labels of some queries so far, sorted, and behind them, unsorted, what came since and may be better."""

    def __init__(self, queries: Tensor, k: int) -> None:
        self.k, self.capacity = k, max(4 * k, 256)
        self.scores = queries.new_full((len(queries), self.capacity), -torch.inf)
        self.indices = torch.full_like(self.scores, -1, dtype=torch.int64)
        self.counts = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
        self.threshold = self.scores[:, k - 1 : k].clone()

    def add(self, tile: Tensor, left: int) -> None:
        """Collect what is above the threshold; the labels of the tile are [left, left + w), after all earlier ones.

        Most segments hold nothing, which their largest score tells. NaN is collected, for the caller to see.
        """
        if bool((self.threshold == -torch.inf).any()):
            self._add_best(tile, left)
            return
        segments = tile.view(len(tile), -1, SEGMENT)
        rows, places = (segments.amax(2) <= self.threshold).logical_not_().nonzero(as_tuple=True)
        if not len(rows):
            return
        segment_numbers, columns = (
            (segments[rows, places] <= self.threshold[rows]).logical_not_().nonzero(as_tuple=True)
        )
        columns += places[segment_numbers] * SEGMENT
        rows = rows[segment_numbers]
        arrivals = torch.bincount(rows, minlength=len(tile))
        if int((self.counts + arrivals).max()) > self.capacity:
            self.sort()
            if int(arrivals.max()) > self.capacity - self.k:
                self._add_best(tile, left)
            else:
                self.add(tile, left)  # the threshold is higher now
            return
        places = torch.arange(len(rows), device=tile.device) - (arrivals.cumsum(0) - arrivals - self.counts)[rows]
        self.scores[rows, places] = tile[rows, columns]
        self.indices[rows, places] = columns + left
        self.counts += arrivals

    def sort(self) -> None:
        """Sort, keep the k best, and raise the threshold. Equal scores stand in the order of their labels throughout."""
        most = int(self.counts.max())
        order = self.scores[:, :most].sort(dim=1, descending=True, stable=True).indices[:, : self.k]
        kept, places = self.scores.gather(1, order), self.indices.gather(1, order)
        self.scores[:, :most], self.indices[:, :most] = -torch.inf, -1
        self.scores[:, : order.shape[1]], self.indices[:, : order.shape[1]] = kept, places
        self.indices[self.scores == -torch.inf] = -1
        self.counts.clamp_(max=self.k)
        self.threshold = self.scores[:, self.k - 1 : self.k].clone()

    def _add_best(self, tile: Tensor, left: int) -> None:
        """Collect the k best of a tile, whatever the threshold."""
        if int(self.counts.max()) > self.capacity - self.k:
            self.sort()
        values, places = _tile_topk(tile, self.k)
        steps = torch.arange(values.shape[1], device=tile.device)
        at = self.counts[:, None] + steps
        self.scores.scatter_(1, at, values)
        self.indices.scatter_(1, at, places + left)
        self.counts += values.shape[1]
        self.sort()


def _whole_segments(width: int) -> int:
    return -(-width // SEGMENT) * SEGMENT


def _tile_topk(tile: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top-k of each row, ties by the lower column; torch.topk leaves the choice and order among equal scores open."""
    k = min(k, tile.shape[1])
    values, places = tile.topk(min(k + 1, tile.shape[1]), dim=1)
    if values.shape[1] > k:
        tied = (values[:, k] == values[:, k - 1]).nonzero()[:, 0]
        values, places = values[:, :k], places[:, :k]
        if len(tied):
            ordered, order = tile[tied].sort(dim=1, descending=True, stable=True)
            values[tied], places[tied] = ordered[:, :k], order[:, :k]
    places, order = places.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, places.gather(1, order)


def _entries(exclude: Positives, top: int, bottom: int) -> tuple[Tensor, Tensor]:
    """(row relative to `top`, label) of the excluded pairs of rows [top, bottom)."""
    first, last = int(exclude.indptr[top]), int(exclude.indptr[bottom])
    rows = torch.repeat_interleave(exclude.indptr[top : bottom + 1].diff(), output_size=last - first)
    return rows, exclude.indices[first:last].long()
