"""Exact top-k inner product search, streaming: tiles of scores, a running best, no B x L matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.errors import InputError

__all__ = ["topk_inner_product"]

DEFAULT_TILE_BYTES = 8 * 2**20
"""A tile that stays in a processor's cache is multiplied and searched faster than a larger one."""


@torch.no_grad()
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
    queries: [B, D], labels: [L, D], floating, on one device. Scores are summed up and returned in float32, or in float64
        where either is float64, under autocast too; no gradient flows through them.
    k: at least 0; k' = min(k, L) labels are returned.
    exclude: labels never returned for a query, as compressed rows: indptr int64 [B + 1] and label indices int64 [nnz].
    tile_bytes: largest size of a tile of scores; extra memory is some such tiles and O(B·k).

    Returns scores [B, k'] and indices int64 [B, k']; where too few labels are left for a query, its row ends with score -inf
    and index -1.

    Raises InputError for shapes, dtypes or devices that do not fit, a negative k, a malformed `exclude`, or NaN among the
    scores.
    """
    if queries.dim() != 2 or labels.dim() != 2 or queries.shape[1] != labels.shape[1]:
        raise InputError(
            f"queries [B, D] and labels [L, D] must be matrices with the same D, "
            f"but have the shapes {tuple(queries.shape)} and {tuple(labels.shape)}."
        )
    if not (queries.is_floating_point() and labels.is_floating_point()) or queries.device != labels.device:
        raise InputError(
            f"queries and labels must be floating and on one device, "
            f"but are {queries.dtype} on {queries.device} and {labels.dtype} on {labels.device}."
        )
    if k < 0:
        raise InputError(f"k must be at least 0, but is {k}.")
    if exclude is not None:
        exclude = exclude[0].to(queries.device), exclude[1].to(queries.device)
        _check_excluded(*exclude, len(queries), len(labels))
    k = min(k, len(labels))
    dtype = torch.promote_types(torch.promote_types(queries.dtype, labels.dtype), torch.float32)
    scores = torch.full((len(queries), k), -torch.inf, dtype=dtype, device=queries.device)
    indices = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    if k == 0:
        return scores, indices
    budget = max(1, tile_bytes // dtype.itemsize)
    height = max(1, budget // max(min(len(labels), 8192), 2 * k))
    with torch.autocast(queries.device.type, enabled=False):
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
    width = budget // len(queries)
    if labels.dtype != queries.dtype:  # the converted labels of a tile must fit the budget as well
        width = min(width, budget // max(1, labels.shape[1]))
    width = max(k, width)
    for left in range(0, len(labels), width):
        tile = queries @ labels[left : left + width].to(queries.dtype).T
        if excluded is not None:
            rows, columns = excluded
            inside = (columns >= left) & (columns < left + tile.shape[1])
            tile[rows[inside], columns[inside] - left] = -torch.inf
        # A row whose best score here does not beat its k-th best so far keeps its list: later labels lose ties.
        best = tile.amax(1)
        if bool(best.isnan().any()):
            raise InputError("queries or labels hold NaN, or infinities that cancel, which cannot be ranked.")
        improved = (best > scores[:, -1]).nonzero()[:, 0]
        if not len(improved):
            continue
        found, places = _candidates(tile if len(improved) == len(tile) else tile[improved], scores[improved, -1:], k)
        merged = torch.cat([scores[improved], found], 1)
        order = merged.sort(dim=1, descending=True, stable=True).indices[:, :k]
        scores[improved] = merged.gather(1, order)
        indices[improved] = torch.cat([indices[improved], places + left], 1).gather(1, order)
    indices[scores == -torch.inf] = -1


def _candidates(tile: Tensor, threshold: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """At most 2k scores of each row, with their columns, that hold its k best above `threshold` [n, 1], padded with -inf.

    Equal scores stand in the order of their columns. After the first tiles few scores pass the threshold, and collecting
    those is several times faster than a top-k of the whole tile.
    """
    if bool((threshold == -torch.inf).all()):
        return _tile_topk(tile, k)
    rows, columns = (tile > threshold).nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(tile))
    most = int(counts.max())
    if most > 2 * k:
        return _tile_topk(tile, k)
    places = torch.arange(len(rows), device=tile.device) - (counts.cumsum(0) - counts)[rows]
    values = torch.full((len(tile), most), -torch.inf, dtype=tile.dtype, device=tile.device)
    found = torch.full((len(tile), most), -1, device=tile.device)
    values[rows, places] = tile[rows, columns]
    found[rows, places] = columns
    return values, found


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


def _check_excluded(indptr: Tensor, indices: Tensor, queries: int, labels: int) -> None:
    if indptr.shape != (queries + 1,) or indices.dim() != 1:
        raise InputError(
            f"exclude must be indptr [{queries + 1}] and indices [nnz], "
            f"but has the shapes {tuple(indptr.shape)} and {tuple(indices.shape)}."
        )
    if indptr.is_floating_point() or indices.is_floating_point():
        raise InputError(f"exclude must hold integers, not {indptr.dtype} and {indices.dtype}.")
    if int(indptr[0]) != 0 or int(indptr[-1]) != len(indices) or bool((indptr.diff() < 0).any()):
        raise InputError(f"exclude's indptr must rise from 0 to {len(indices)}, the number of its indices.")
    outside = indices[(indices < 0) | (indices >= labels)]
    if len(outside):
        raise InputError(f"exclude names the label {int(outside[0])}, but there are {labels} labels.")
