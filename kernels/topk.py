"""Exact top-k inner product search, streaming: tiles of scores, a running best, no B x L matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.errors import InputError

__all__ = ["topk_inner_product"]

DEFAULT_TILE_BYTES = 32 * 2**20


def topk_inner_product(
    queries: Tensor,
    labels: Tensor,
    k: int,
    *,
    exclude: tuple[Tensor, Tensor] | None = None,
    tile_bytes: int = DEFAULT_TILE_BYTES,
) -> tuple[Tensor, Tensor]:
    """The k labels of largest inner product with each query, exact, best first, ties by the lower index.

    Parameters
    ----------
    queries: [B, D], labels: [L, D], of one floating dtype; scores are float32, or float64 for float64 input.
    k: at least 0; k' = min(k, L) labels are returned.
    exclude: labels never returned for a query, as compressed rows: indptr int64 [B + 1] and label indices int64 [nnz].
    tile_bytes: largest size of a tile of scores; extra memory is some such tiles and O(B·k).

    Returns scores [B, k'] and indices int64 [B, k']; where too few labels are left for a query, its row ends with score -inf
    and index -1.

    Raises InputError for shapes that do not fit, a negative k, or NaN among the scores.
    """
    if queries.dim() != 2 or labels.dim() != 2 or queries.shape[1] != labels.shape[1]:
        raise InputError(
            f"queries [B, D] and labels [L, D] must be matrices with the same D, "
            f"but have the shapes {tuple(queries.shape)} and {tuple(labels.shape)}."
        )
    if k < 0:
        raise InputError(f"k must be at least 0, but is {k}.")
    k = min(k, len(labels))
    dtype = torch.float64 if queries.dtype == torch.float64 else torch.float32
    scores = torch.full((len(queries), k), -torch.inf, dtype=dtype, device=queries.device)
    indices = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    if k == 0:
        return scores, indices
    budget = max(1, tile_bytes // dtype.itemsize)
    height = max(1, budget // max(min(len(labels), 8192), 2 * k))
    for top in range(0, len(queries), height):
        block = slice(top, top + height)
        excluded = None if exclude is None else _entries(*exclude, top, min(top + height, len(queries)))
        _block(queries[block].to(dtype), labels, excluded, budget, scores[block], indices[block])
    return scores, indices


def _block(
    queries: Tensor,
    labels: Tensor,
    excluded: tuple[Tensor, Tensor] | None,
    budget: int,
    scores: Tensor,
    indices: Tensor,
) -> None:
    """Top-k of some queries over all labels, into `scores` and `indices`."""
    k = scores.shape[1]
    width = max(k, budget // len(queries), 1)
    for left in range(0, len(labels), width):
        tile = queries @ labels[left : left + width].to(queries.dtype).T
        if excluded is not None:
            rows, columns = excluded
            inside = (columns >= left) & (columns < left + tile.shape[1])
            tile[rows[inside], columns[inside] - left] = -torch.inf
        # A row whose best score here does not beat its k-th best so far keeps its list: later labels lose ties.
        best = tile.amax(1)
        if bool(best.isnan().any()):
            raise InputError("queries or labels hold NaN, which cannot be ranked.")
        improved = (best > scores[:, -1]).nonzero()[:, 0]
        if not len(improved):
            continue
        found, places = _tile_topk(tile if len(improved) == len(tile) else tile[improved], k)
        merged = torch.cat([scores[improved], found], 1)
        order = merged.sort(dim=1, descending=True, stable=True).indices[:, :k]
        scores[improved] = merged.gather(1, order)
        indices[improved] = torch.cat([indices[improved], places + left], 1).gather(1, order)
    indices[scores == -torch.inf] = -1


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


def _entries(indptr: Tensor, indices: Tensor, top: int, bottom: int) -> tuple[Tensor, Tensor]:
    """(row relative to `top`, label) of the excluded pairs of rows [top, bottom)."""
    first, last = int(indptr[top]), int(indptr[bottom])
    rows = torch.repeat_interleave(indptr[top : bottom + 1].diff(), output_size=last - first)
    return rows, indices[first:last]
