"""The engine in plain torch on a GPU; the interface of `torch_tiles`, which is for a CPU.

There a pass over a tile costs as much as a good part of its product, and a product is fast in the inputs' dtype and where it is
large. So tiles hold as many queries and labels as `tile_bytes` allows, products of float16 and bfloat16 are of that dtype with
sums of float32, 1/τ is part of the product, and the gradients of scores are cast once, by the operation that computes them.
Forward 2·B·L·D flops, backward 6·B·L·D.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from xmc.kernels.problem import Gradients, Problem, Result
from xmc.kernels.products import add_product, product, sum_dtype
from xmc.kernels.reductions import Reduction
from xmc.kernels.torch_tiles import Tile

__all__ = ["backward", "forward"]

HEIGHT = 8192
"""Largest number of queries in a tile: more of them would leave it too few labels."""

FLOAT16_RANGE = 2.0**15
"""What the largest gradient of a score is brought to in float16, whose smallest numbers are 2⁻²⁴."""


def forward(
    problem: Problem, queries: Tensor, labels: Tensor, bias: Tensor | None, needs: tuple[bool, bool, bool]
) -> Result:
    """Row statistics. needs: whether a backward pass will ask for the gradients of queries, labels and bias."""
    tiles = _Tiles(problem, queries, labels, bias)
    sums = problem.reduction.start(len(queries), queries, tiles.dtype)
    # Excluded pairs, of slot -1, write their scores to the place behind those of the positives.
    positive_scores = queries.new_zeros(len(problem.positives.indices) + 1, dtype=tiles.dtype)
    for tile, _ in tiles:
        scores, pair_scores = tiles.scores(tile)
        positive_scores[tile.slots] = pair_scores
        problem.reduction.add(sums, tile.query_range, scores)
    return Result(problem.reduction.finish(sums, None), sums.derivative, positive_scores[:-1])


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

    Of a tile, P = f'(s_ij) in the inputs' dtype gives dQ += P·Z and dZ = Pᵀ·(g ∘ Q / τ), with the incoming gradients g of the
    rows; those of positives, a few numbers a row, are added in float32.
    """
    needs_queries, needs_labels, needs_bias = needs
    tiles = _Tiles(problem, queries, labels, bias)
    enlarged = _enlarged(queries.dtype, problem.reduction)
    row_gradient = value_gradient * tiles.scale
    operand, unit = _operand(queries.to(tiles.dtype) * row_gradient[:, None], queries.dtype)
    unit = None if unit is None else unit * enlarged
    pair_gradient = torch.nn.functional.pad(positive_gradient * tiles.scale, (0, 1))  # 0 for excluded pairs
    query_gradient = queries.new_zeros(queries.shape, dtype=tiles.dtype) if needs_queries else None
    label_gradient = torch.zeros_like(labels) if needs_labels else None
    bias_gradient = labels.new_zeros(len(labels), dtype=tiles.dtype) if needs_bias else None
    update = labels.new_empty((min(tiles.width, len(labels)), labels.shape[1]), dtype=tiles.dtype)
    for tile, sources in tiles:
        scores, _ = tiles.scores(tile)
        if bias_gradient is not None:
            problem.reduction.gradient(result.value, tile.query_range, scores)
            bias_gradient[tile.label_range] += scores.T @ value_gradient[tile.query_range]
            weights = tiles.cast(scores, enlarged)
        else:
            weights = tiles.weights(tile, scores, result.value, enlarged)
        if query_gradient is not None:
            add_product(query_gradient[tile.query_range], weights, labels[tile.label_range])
        if label_gradient is not None:
            total = update[: tile.right - tile.left]
            if tile.top == 0:
                product(weights.T, operand[tile.query_range], out=total)
            else:
                add_product(total, weights.T, operand[tile.query_range])
            factors = pair_gradient[sources] if unit is None else pair_gradient[sources] * unit
            tiles.add_pairs(total, tile.columns, queries, tile.rows + tile.top, factors)
            if tile.bottom == len(queries):
                label_gradient[tile.label_range] = total if unit is None else total.div_(unit)
    rows, columns = problem.positives.rows, problem.positives.indices.long()
    if bias_gradient is not None:
        bias_gradient.index_add_(0, columns, positive_gradient)
    if query_gradient is not None:
        query_gradient.mul_(row_gradient[:, None] / enlarged)
        tiles.add_pairs(query_gradient, rows, labels, columns, pair_gradient[:-1])
    return Gradients(query_gradient, label_gradient, bias_gradient)


class _Tiles:
    """The tiles of the scores, all computed into one buffer; label tiles outermost, all queries or blocks of them within."""

    def __init__(self, problem: Problem, queries: Tensor, labels: Tensor, bias: Tensor | None) -> None:
        self.problem, self.queries, self.labels = problem, queries, labels
        self.dtype = sum_dtype(queries.dtype)
        self.bias = None if bias is None else bias.to(self.dtype)
        self.scale = float(problem.scale)
        budget = max(1, problem.tile_bytes // self.dtype.itemsize)
        self.height = max(1, min(len(queries), HEIGHT, budget))
        self.width = max(1, min(len(labels), budget // max(self.height, labels.shape[1])))
        size = self.height * self.width
        self.buffer = queries.new_empty(size, dtype=self.dtype)
        # Scores and their gradients in the inputs' dtype; in place where that is the same.
        self.low = self.buffer if queries.dtype == self.dtype else queries.new_empty(size)

    def __iter__(self) -> Iterator[tuple[Tile, Tensor]]:
        """Tiles, and where the gradient of each of their pairs stands: its slot, and -1 for what is given as excluded.

        One question to the device: how many pairs each tile has.
        """
        count, total = len(self.queries), len(self.labels)
        blocks, label_tiles = -(-count // self.height), -(-total // self.width)
        rows, columns, slots = self.problem.pairs
        numbers = columns.div(self.width, rounding_mode="floor") * blocks + rows.div(self.height, rounding_mode="floor")
        numbers, order = numbers.sort(stable=True)
        edges = torch.arange(blocks * label_tiles + 1, device=numbers.device)
        cuts = torch.searchsorted(numbers, edges).tolist()
        rows, columns, slots = rows[order], columns[order], slots[order]
        sources = torch.where(order < len(self.problem.positives.indices), order, -1)
        for number in range(blocks * label_tiles):
            left, top = number // blocks * self.width, number % blocks * self.height
            inside = slice(cuts[number], cuts[number + 1])
            bottom, right = min(count, top + self.height), min(total, left + self.width)
            yield (
                Tile(top, bottom, left, right, rows[inside] - top, columns[inside] - left, slots[inside]),
                sources[inside],
            )

    def scores(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """The scores of a tile, -inf where they do not count, and those of its pairs as they were before."""
        scores = self._part_of(self.buffer, tile)
        product(self.queries[tile.query_range], self.labels[tile.label_range].T, scale=self.scale, out=scores)
        if self.bias is not None:
            scores += self.bias[tile.label_range]
        pair_scores = scores[tile.rows, tile.columns]
        if not self.problem.reduction.takes_positives:
            scores[tile.rows, tile.columns] = torch.full_like(pair_scores, -torch.inf)
        elif self.problem.exclude is not None:
            scores[tile.rows, tile.columns] = torch.where(tile.slots < 0, -torch.inf, pair_scores)
        return scores, pair_scores

    def weights(self, tile: Tile, scores: Tensor, value: Tensor, enlarged: float) -> Tensor:
        """f'(s_ij) · `enlarged` of a tile of scores, which is consumed, in the inputs' dtype."""
        low = self._part_of(self.low, tile)
        if enlarged == 1.0:
            return self.problem.reduction.gradient_into(value, tile.query_range, scores, low)
        return self.cast(self.problem.reduction.gradient(value, tile.query_range, scores), enlarged)

    def cast(self, gradients: Tensor, factor: float) -> Tensor:
        """A tile of gradients times a factor, in the inputs' dtype; in place where that is theirs."""
        return torch.mul(gradients, factor, out=self.low[: gradients.numel()].view(gradients.shape))

    def add_pairs(self, total: Tensor, rows: Tensor, others: Tensor, other_rows: Tensor, factors: Tensor) -> None:
        """total[rows] += factors · others[other_rows], over as many pairs at once as fit a tile."""
        step = max(1, self.problem.tile_bytes // (max(1, others.shape[1]) * self.dtype.itemsize))
        for start in range(0, len(rows), step):
            chunk = slice(start, start + step)
            total.index_add_(0, rows[chunk], others[other_rows[chunk]].to(self.dtype) * factors[chunk, None])

    @staticmethod
    def _part_of(buffer: Tensor, tile: Tile) -> Tensor:
        height, width = tile.bottom - tile.top, tile.right - tile.left
        return buffer[: height * width].view(height, width)


def _enlarged(dtype: torch.dtype, reduction: Reduction) -> float:
    """The power of two by which f'(s_ij), at most the larger of 1 and the slope, is multiplied before it is cast."""
    if dtype != torch.float16:
        return 1.0
    return 2.0 ** math.floor(math.log2(FLOAT16_RANGE / max(1.0, reduction.slope)))


def _operand(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Rows [B, D] in a dtype, and the power of two that brings the largest near 1,024 in float16, None in others."""
    if dtype != torch.float16:
        return rows.to(dtype), None
    if not rows.numel():
        return rows.to(dtype), rows.new_ones(())
    largest = rows.abs().amax()
    unit = torch.where(largest > 0, (1024 / largest).log2().floor().exp2(), 1.0)
    return (rows * unit).to(dtype), unit
