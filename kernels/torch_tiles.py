"""The tile engine in plain torch: for each tile of the scores, compute it, reduce it, drop it.

Runs wherever torch runs; on a CPU the work is in BLAS. Scores and accumulators are float32, or float64 for float64 input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from xmc.kernels.positives import Positives

__all__ = ["Saved", "Tile", "backward", "forward", "tiles"]


@dataclass(frozen=True)
class Tile:
    """A block of the scores: queries [top, bottom), labels [left, right), and the positives that lie in it."""

    top: int
    bottom: int
    left: int
    right: int
    rows: Tensor  # int64, relative to `top`
    columns: Tensor  # int64, relative to `left`
    entries: Tensor  # int64, where these positives stand in Positives.indices


@dataclass(frozen=True)
class Saved:
    """What the forward pass leaves for the backward pass.

    Either `scores`, the one tile that was all of the scores, or `softmax_labels`, for each query the mean of the label
    embeddings under the softmax over its negatives, [B, D]: what the gradient of the queries needs.
    """

    negative_logsumexp: Tensor
    scores: Tensor | None
    softmax_labels: Tensor | None


def tiles(queries: int, labels: int, positives: Positives, tile_bytes: int, itemsize: int) -> Iterator[Tile]:
    """Cut the B x L scores into tiles of at most `tile_bytes` bytes (but at least one score), query blocks outermost."""
    budget = max(1, tile_bytes // itemsize)
    height = min(queries, max(1, budget // min(max(labels, 1), 1024)))
    width = min(max(labels, 1), max(1, budget // max(height, 1)))
    for top in range(0, queries, max(height, 1)):
        bottom = min(queries, top + height)
        first, last = int(positives.indptr[top]), int(positives.indptr[bottom])
        columns, order = positives.indices[first:last].long().sort(stable=True)
        rows = torch.repeat_interleave(positives.indptr[top : bottom + 1].diff(), output_size=last - first)[order]
        edges = torch.arange(0, labels + width, width, device=columns.device)
        cuts = torch.searchsorted(columns, edges).tolist()
        for number, left in enumerate(range(0, labels, width)):
            inside = slice(cuts[number], cuts[number + 1])
            yield Tile(
                top,
                bottom,
                left,
                min(labels, left + width),
                rows[inside],
                columns[inside] - left,
                order[inside] + first,
            )


def forward(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    scale: float,
    label_offsets: Tensor | None,
    tile_bytes: int,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor, Saved]:
    """Row statistics and what the backward pass needs; 2·B·L·D flops, with gradient 4·B·L·D unless one tile holds all."""
    dtype = _compute_dtype(queries)
    count, total = len(queries), len(labels)
    maximum = queries.new_full((count,), -torch.inf, dtype=dtype)
    partition = queries.new_zeros(count, dtype=dtype)
    positive_scores = queries.new_zeros(len(positives.indices), dtype=dtype)
    keep = needs_gradient and count * total * dtype.itemsize <= tile_bytes
    weighted = queries.new_zeros((count, queries.shape[1]), dtype=dtype) if needs_gradient and not keep else None
    kept = None
    for tile in tiles(count, total, positives, tile_bytes, dtype.itemsize):
        block = slice(tile.top, tile.bottom)
        scores = _scores(queries, labels, tile, scale, label_offsets, dtype)
        positive_scores[tile.entries] = scores[tile.rows, tile.columns]
        scores[tile.rows, tile.columns] = -torch.inf
        kept = scores.clone() if keep else None
        highest = torch.maximum(maximum[block], scores.amax(1))
        # A row of positives only has no finite maximum; any finite shift keeps its exponentials at zero.
        shift = torch.where(highest.isinf(), 0.0, highest)
        rescale = (maximum[block] - shift).exp_()
        exponentials = scores.sub_(shift[:, None]).exp_()
        partition[block] = partition[block] * rescale + exponentials.sum(1)
        if weighted is not None:
            part = labels[tile.left : tile.right].to(dtype)
            weighted[block] = torch.addmm(weighted[block] * rescale[:, None], exponentials, part)
        maximum[block] = highest
        del scores, exponentials  # or the next tile would be made beside this one
    negative_logsumexp = partition.log() + torch.where(maximum.isinf(), 0.0, maximum)
    if weighted is not None:
        weighted /= partition.clamp_min(torch.finfo(dtype).tiny)[:, None]
    return negative_logsumexp, positive_scores, Saved(negative_logsumexp, kept, weighted)


def backward(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    scale: float,
    label_offsets: Tensor | None,
    tile_bytes: int,
    saved: Saved,
    negative_gradient: Tensor,
    positive_gradient: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of queries, labels and offsets, in the compute dtype, from those of the two row statistics.

    With one kept tile 4·B·L·D flops, else 4·B·L·D too (scores once more, and the labels' gradient).
    """
    dtype = _compute_dtype(queries)
    count, total = len(queries), len(labels)
    query_gradient = queries.new_zeros(queries.shape, dtype=dtype)
    label_gradient = labels.new_zeros(labels.shape, dtype=dtype)
    offset_gradient = None if label_offsets is None else labels.new_zeros(total, dtype=dtype)
    shift = torch.where(saved.negative_logsumexp.isinf(), 0.0, saved.negative_logsumexp)[:, None]
    for tile in tiles(count, total, positives, tile_bytes, dtype.itemsize):
        block, part = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
        if saved.scores is None:
            scores = _scores(queries, labels, tile, scale, label_offsets, dtype)
        else:
            scores = saved.scores.clone()
        # The positives' exponentials may overflow; they are overwritten, never multiplied.
        gradient = scores.sub_(shift[block]).exp_().mul_(negative_gradient[block, None])
        gradient[tile.rows, tile.columns] = positive_gradient[tile.entries]
        if offset_gradient is not None:
            offset_gradient[part] += gradient.sum(0)
        label_gradient[part].addmm_(gradient.T, queries[block].to(dtype), alpha=scale)
        if saved.scores is not None:
            query_gradient[block].addmm_(gradient, labels[part].to(dtype), alpha=scale)
        del scores, gradient
    if saved.softmax_labels is not None:
        query_gradient.addcmul_(saved.softmax_labels, negative_gradient[:, None], value=scale)
        _add_positives(query_gradient, labels, positives, positive_gradient, scale, tile_bytes)
    return query_gradient, label_gradient, offset_gradient


def _compute_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _scores(
    queries: Tensor, labels: Tensor, tile: Tile, scale: float, label_offsets: Tensor | None, dtype: torch.dtype
) -> Tensor:
    rows, part = queries[tile.top : tile.bottom].to(dtype), labels[tile.left : tile.right].to(dtype)
    if label_offsets is None:
        return (rows @ part.T).mul_(scale)
    return torch.addmm(label_offsets[tile.left : tile.right].to(dtype), rows, part.T, alpha=scale)


def _add_positives(
    query_gradient: Tensor, labels: Tensor, positives: Positives, gradient: Tensor, scale: float, tile_bytes: int
) -> None:
    """Add scale · Σ_p gradient_p · z_p to each query's row, over as many positives at once as fit the tile."""
    rows, columns = positives.rows, positives.indices.long()
    step = max(1, tile_bytes // (labels.shape[1] * query_gradient.element_size()))
    for start in range(0, len(columns), step):
        chunk = slice(start, start + step)
        embeddings = labels[columns[chunk]].to(query_gradient.dtype) * (gradient[chunk, None] * scale)
        query_gradient.index_add_(0, rows[chunk], embeddings)
