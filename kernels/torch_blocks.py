"""Moments of blocks of labels in plain torch, on a CPU or a GPU: what soft top-k's search makes its curves of."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.devices import values_are_free
from xmc.kernels.problem import Problem
from xmc.kernels.products import product, sum_dtype
from xmc.kernels.reductions import Sigmoid
from xmc.kernels.torch_tiles import CACHE_BYTES

__all__ = ["block_moments"]

BLOCKS = 1024
"""Blocks that labels are cut into at least; with no more labels, each is one of its own."""

BLOCK_LABELS = 256
"""Labels of a block at most."""


LARGEST = 80.0
"""A score above it is cut off: float32 holds its exponential, and its sigmoid is 1 to rounding long before."""

SMALL = 30.0
"""While a block's largest score is above the negative of it, the squares of its sigmoids are far from underflow."""


def block_moments(problem: Problem, queries: Tensor, labels: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """See xmc.kernels.row_statistics.block_moments; 2·B·L·D flops.

    With n blocks, block b is the labels b, b + n, b + 2 n ...: labels that are alike often stand together, and one number
    of a block that holds several of a query's best would hide them.
    """
    total, dtype, reduction = len(labels), sum_dtype(queries.dtype), problem.reduction
    assert isinstance(reduction, Sigmoid)
    size = max(1, min(BLOCK_LABELS, -(-total // BLOCKS)))
    blocks = -(-total // size)
    found = queries.new_empty((2, len(queries), blocks), dtype=dtype)
    budget = min(problem.tile_bytes, CACHE_BYTES) if queries.device.type == "cpu" else problem.tile_bytes
    height = max(1, min(len(queries), budget // dtype.itemsize // max(1, min(total, max(1024, size)))))
    wide = max(1, min(blocks, budget // dtype.itemsize // (height * size)))  # blocks of a tile
    excluded = _Excluded(problem, height, wide, blocks)
    buffer = queries.new_empty(height * wide * size, dtype=dtype)
    gathered = labels.new_empty((wide * size, labels.shape[1]))
    scale, shift = reduction.slope * float(problem.scale), reduction.slope * reduction.shift.to(dtype)
    for top in range(0, len(queries), height):
        rows, row_shift = queries[top : top + height], shift[top : top + height, None]
        for first in range(0, blocks, wide):
            width = min(wide, blocks - first)
            numbers = torch.arange(first, first + width, device=labels.device)
            places = torch.arange(size, device=labels.device)[:, None]
            chosen = (numbers + blocks * places).flatten().clamp_max(total - 1)
            scores = buffer[: len(rows) * len(chosen)].view(len(rows), len(chosen))
            part = torch.index_select(labels, 0, chosen, out=gathered[: len(chosen)])
            product(rows, part.T, scale=scale, out=scores)
            if bias is not None:
                scores += bias[chosen].to(dtype) * reduction.slope
            scores = scores.view(len(rows), size, width)
            excluded.hide(scores, top // height, first // wide)
            scores[:, -1, max(0, total - (size - 1) * blocks - first) :] = -torch.inf  # blocks one label short
            value, second = _moments(scores, row_shift)
            found[0, top : top + height, first : first + width] = value
            found[1, top : top + height, first : first + width] = second
    return found[0].T, found[1].T


def _moments(scores: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """log Σ w and log Σ w² over the middle axis of scores [h, n, m], [h, m] each, w = σ(s + t), or exp(s) where t is NaN.

    shift: t, [h, 1]. The scores are consumed.
    """
    known = ~shift.isnan()
    free = values_are_free(scores)
    if not free or bool(known.any()):
        scores += torch.where(known, shift, 0.0)[:, None]
    highest = scores.amax(1)
    if free and bool(known.all()) and len(highest) and float(highest.nan_to_num(neginf=0.0).min()) > -SMALL:
        base = torch.zeros_like(highest)
        scores.sigmoid_()
    else:
        # Weights are in units of exp(base), which keeps the largest of a block between 1/2 and 1.
        base = torch.where(known, highest.clamp_max(0), highest).nan_to_num_(neginf=0.0)
        if free and not bool(known.any()):
            scores.sub_(base[:, None]).exp_()
        else:
            rate = torch.where(known, base.exp(), 0.0)
            scores.clamp_max_(torch.where(known, LARGEST, torch.inf).to(scores.dtype)[:, None])
            # w / (1 + w · rate), in place.
            scores.sub_(base[:, None]).exp_().reciprocal_().add_(rate[:, None]).reciprocal_()
    value = scores.sum(1).log_() + base
    return value, scores.square_().sum(1).log_().add_(base, alpha=2)


class _Excluded:
    """The pairs that count nowhere, sorted by the tile of `height` queries and `wide` blocks that they lie in."""

    def __init__(self, problem: Problem, height: int, wide: int, blocks: int) -> None:
        """One question to the device, where pairs are excluded: how many of them each tile has."""
        self.cuts: list[int] = []
        if problem.exclude is None:
            return
        rows, labels, slots = problem.pairs
        block, place = labels % blocks, labels.div(blocks, rounding_mode="floor")
        self.tiles = -(-blocks // wide)
        numbers = rows.div(height, rounding_mode="floor") * self.tiles + block.div(wide, rounding_mode="floor")
        numbers, order = numbers.sort(stable=True)
        edges = torch.arange(-(-len(problem.positives) // height) * self.tiles + 1, device=numbers.device)
        self.cuts = torch.searchsorted(numbers, edges).tolist()
        self.rows, self.places, self.blocks = (rows % height)[order], place[order], (block % wide)[order]
        self.counted = (slots >= 0)[order]

    def hide(self, scores: Tensor, row_block: int, tile: int) -> None:
        """Put -inf in the place of those in a tile of scores [queries, places in a block, blocks]."""
        if not self.cuts:
            return
        number = row_block * self.tiles + tile
        inside = slice(self.cuts[number], self.cuts[number + 1])
        at = (self.rows[inside], self.places[inside], self.blocks[inside])
        scores[at] = torch.where(self.counted[inside], scores[at], -torch.inf)
