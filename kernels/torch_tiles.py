"""The tile engine in plain torch for a CPU: for each tile of the scores, compute it, reduce it, drop it.

The work is in BLAS. Scores and accumulators are float32, or float64 for float64 input. All tiles are computed into one buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from xmc.kernels.entries import Entries
from xmc.kernels.problem import Gradients, Problem, Result
from xmc.kernels.products import sum_dtype

__all__ = ["Tile", "backward", "forward", "tiles"]

CACHE_BYTES = 4 * 2**20
"""Largest tile: what stays in a CPU's cache between the product and the passes over it."""


@dataclass(frozen=True)
class Tile:
    """A block of the scores: queries [top, bottom), labels [left, right), and the special pairs that lie in it."""

    top: int
    bottom: int
    left: int
    right: int
    rows: Tensor  # int64, relative to `top`
    columns: Tensor  # int64, relative to `left`
    slots: Tensor  # int64, see Entries

    @property
    def query_range(self) -> slice:
        """The queries of the tile."""
        return slice(self.top, self.bottom)

    @property
    def label_range(self) -> slice:
        """The labels of the tile."""
        return slice(self.left, self.right)


def tiles(queries: int, labels: int, entries: Entries, tile_bytes: int, itemsize: int) -> Iterator[Tile]:
    """Cut the B x L scores into tiles of at most `tile_bytes` bytes (but at least one score), query blocks outermost."""
    budget = max(1, tile_bytes // itemsize)
    height = min(queries, max(1, budget // min(max(labels, 1), 1024)))
    width = min(max(labels, 1), max(1, budget // max(height, 1)))
    for top in range(0, queries, max(height, 1)):
        bottom = min(queries, top + height)
        first, last = int(entries.indptr[top]), int(entries.indptr[bottom])
        columns, order = entries.columns[first:last].sort(stable=True)
        rows = torch.repeat_interleave(entries.indptr[top : bottom + 1].diff(), output_size=last - first)[order]
        slots = order + first if entries.slots is None else entries.slots[first:last][order]
        edges = torch.arange(0, labels + width, width, device=columns.device)
        cuts = torch.searchsorted(columns, edges).tolist()
        for number, left in enumerate(range(0, labels, width)):
            inside = slice(cuts[number], cuts[number + 1])
            yield Tile(
                top, bottom, left, min(labels, left + width), rows[inside], columns[inside] - left, slots[inside]
            )


def forward(
    problem: Problem, queries: Tensor, labels: Tensor, bias: Tensor | None, needs: tuple[bool, bool, bool]
) -> Result:
    """Row statistics; 2·B·L·D flops, and as many again for Σ_j f'(s_ij) z_j where the queries' gradient is needed.

    needs: whether a backward pass will ask for the gradients of queries, labels and bias.
    """
    reduction, dtype = problem.reduction, sum_dtype(queries.dtype)
    count, total = len(queries), len(labels)
    sums = reduction.start(count, queries, dtype)
    positive_scores = queries.new_zeros(problem.entries.positives, dtype=dtype)
    keep = any(needs) and count * total * dtype.itemsize <= problem.tile_bytes
    kept = queries.new_empty((count, total), dtype=dtype) if keep else None
    weighted = queries.new_zeros((count, queries.shape[1]), dtype=dtype) if needs[0] and not keep else None
    scorer = _Scorer(problem, queries, labels, bias, dtype)
    for tile in scorer.tiles():
        scores = scorer(tile)
        _collect(tile, scores, positive_scores, problem)
        if kept is not None:
            kept[tile.query_range, tile.label_range] = scores
        rescale = reduction.add(sums, tile.query_range, scores)
        if weighted is not None:
            if rescale is not None:
                weighted[tile.query_range] *= rescale[:, None]
            weighted[tile.query_range].addmm_(scores, labels[tile.label_range].to(dtype))
    value = reduction.finish(sums, weighted)
    return Result(value, sums.derivative, positive_scores, scores=kept, weighted=weighted)


def backward(
    problem: Problem,
    queries: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    result: Result,
    value_gradient: Tensor,
    positive_gradient: Tensor,
    needs: tuple[bool, bool, bool],
) -> Gradients:
    """Gradients of queries, labels and bias, each where `needs` says so, from those of values and positive scores.

    Scores are computed once more and multiplied with the queries: 4·B·L·D flops. Where all of them were kept, they are
    multiplied with queries and labels instead. Where only the queries are asked, B·D, thanks to the forward pass.
    """
    dtype, scale = sum_dtype(queries.dtype), float(problem.scale)
    needs_queries, needs_labels, needs_bias = needs
    query_gradient = queries.new_zeros(queries.shape, dtype=dtype) if needs_queries else None
    label_gradient = labels.new_zeros(labels.shape, dtype=dtype) if needs_labels else None
    bias_gradient = labels.new_zeros(len(labels), dtype=dtype) if needs_bias else None
    if query_gradient is not None and result.weighted is not None:
        query_gradient.addcmul_(result.weighted, value_gradient[:, None], value=scale)
        _add_positives(query_gradient, labels, problem, positive_gradient)
    if not (needs_labels or needs_bias) and result.scores is None:
        return Gradients(query_gradient, None, None)
    scorer = _Scorer(problem, queries, labels, bias, dtype, result.scores)
    for tile in scorer.tiles():
        scores = scorer(tile)
        _mask(tile, scores, problem)
        gradient = problem.reduction.gradient(result.value, tile.query_range, scores)
        gradient.mul_(value_gradient[tile.query_range, None])
        chosen = slice(None) if problem.entries.slots is None else tile.slots >= 0
        gradient[tile.rows[chosen], tile.columns[chosen]] += positive_gradient[tile.slots[chosen]]
        if bias_gradient is not None:
            bias_gradient[tile.label_range] += gradient.sum(0)
        if label_gradient is not None:
            label_gradient[tile.label_range].addmm_(gradient.T, scorer.queries[tile.query_range])
        if query_gradient is not None and result.scores is not None:
            query_gradient[tile.query_range].addmm_(gradient, labels[tile.label_range].to(dtype), alpha=scale)
    return Gradients(query_gradient, label_gradient, bias_gradient)


class _Scorer:
    """Computes tiles of scores into one buffer, or copies them from `kept`."""

    def __init__(
        self,
        problem: Problem,
        queries: Tensor,
        labels: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        kept: Tensor | None = None,
    ) -> None:
        self.problem, self.labels, self.bias, self.kept, self.dtype = problem, labels, bias, kept, dtype
        self.queries = queries.to(dtype) * problem.scale
        self.bytes = min(problem.tile_bytes, CACHE_BYTES)
        self.buffer = queries.new_empty(0, dtype=dtype)

    def tiles(self) -> Iterator[Tile]:
        return tiles(len(self.queries), len(self.labels), self.problem.entries, self.bytes, self.dtype.itemsize)

    def __call__(self, tile: Tile) -> Tensor:
        height, width = tile.bottom - tile.top, tile.right - tile.left
        if len(self.buffer) < height * width:
            self.buffer = self.buffer.new_empty(height * width)
        scores = self.buffer[: height * width].view(height, width)
        if self.kept is not None:
            return scores.copy_(self.kept[tile.query_range, tile.label_range])
        torch.mm(self.queries[tile.query_range], self.labels[tile.label_range].to(self.dtype).T, out=scores)
        if self.bias is not None:
            scores += self.bias[tile.label_range].to(self.dtype)
        return scores


def _collect(tile: Tile, scores: Tensor, positive_scores: Tensor, problem: Problem) -> None:
    """Note the scores of the positives in this tile, then mask what does not belong to the sum."""
    special_scores = scores[tile.rows, tile.columns]
    if problem.entries.slots is None:
        positive_scores[tile.slots] = special_scores
    else:
        chosen = tile.slots >= 0
        positive_scores[tile.slots[chosen]] = special_scores[chosen]
    _mask(tile, scores, problem)


def _mask(tile: Tile, scores: Tensor, problem: Problem) -> None:
    if not problem.reduction.takes_positives:
        scores[tile.rows, tile.columns] = -torch.inf
    elif problem.entries.slots is not None:
        excluded = tile.slots < 0
        scores[tile.rows[excluded], tile.columns[excluded]] = -torch.inf


def _add_positives(query_gradient: Tensor, labels: Tensor, problem: Problem, gradient: Tensor) -> None:
    """Add scale · Σ_p gradient_p · z_p to each query's row, over as many positives at once as fit a tile."""
    entries = problem.entries
    rows, columns = entries.rows, entries.columns
    if entries.slots is not None:
        rows, columns = rows[entries.slots >= 0], columns[entries.slots >= 0]
    step = max(1, min(problem.tile_bytes, CACHE_BYTES) // (labels.shape[1] * query_gradient.element_size()))
    for start in range(0, len(columns), step):
        chunk = slice(start, start + step)
        embeddings = labels[columns[chunk]].to(query_gradient.dtype) * (gradient[chunk, None] * problem.scale)
        query_gradient.index_add_(0, rows[chunk], embeddings)
