"""Single (query, label) pairs beside the products: their scores, and their gradients put into a buffer's place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.problem import Problem
from xmc.kernels.reductions import Reduction
from xmc.kernels.triton_tiles.product import Product
from xmc.kernels.triton_tiles.reductions import device_functions

__all__ = ["Pairs", "pair_scores", "put_pair_gradients"]

BLOCK = 16
"""Pairs whose embeddings a program gathers at once."""
DEPTH = 64
"""Dimensions of an embedding that it gathers at once."""
PLACES = 256
"""Pairs whose gradients a program puts in their place."""


@dataclass(frozen=True)
class Pairs:
    """Pairs that are not like all others: query, label and slot, int64 [n] each, in any order, possibly twice.

    slots: a positive's number, -1 for a pair that is left out of everything. positives: number of slots.
    """

    rows: Tensor
    columns: Tensor
    slots: Tensor
    positives: int

    @classmethod
    def of(cls, problem: Problem) -> Pairs:
        """The positives of a problem, and the pairs that it leaves out."""
        return cls(*problem.pairs, len(problem.positives.indices))


@triton.jit
def _pair_scores(
    queries, labels, bias, scale, rows, columns, slots, scores, pairs, depth, stride_q, stride_z,
    BIASED: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    numbers = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    slot = tl.load(slots + numbers, mask=numbers < pairs, other=-1)
    wanted = slot >= 0
    row = tl.load(rows + numbers, mask=wanted, other=0)
    column = tl.load(columns + numbers, mask=wanted, other=0)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, depth, DEPTH):
        at = start + tl.arange(0, DEPTH)
        inside = wanted[:, None] & (at < depth)[None, :]
        q = tl.load(queries + row[:, None] * stride_q + at[None, :], mask=inside, other=0.0)
        z = tl.load(labels + column[:, None] * stride_z + at[None, :], mask=inside, other=0.0)
        total += tl.sum(q.to(tl.float32) * z.to(tl.float32), 1)
    total *= tl.load(scale)
    if BIASED:
        total += tl.load(bias + column, mask=wanted, other=0.0).to(tl.float32)
    tl.store(scores + slot, total, mask=wanted)


def pair_scores(product: Product, pairs: Pairs, bias: Tensor | None, scale: Tensor) -> Tensor:
    """Scores of the positives, float32 [positives], summed up in float32."""
    scores = product.queries.new_zeros(pairs.positives, dtype=torch.float32)
    if pairs.positives:
        _pair_scores[(triton.cdiv(len(pairs.rows), BLOCK),)](
            product.queries,
            product.labels,
            bias,
            scale,
            pairs.rows,
            pairs.columns,
            pairs.slots,
            scores,
            len(pairs.rows),
            product.queries.shape[1],
            product.queries.stride(0),
            product.labels.stride(0),
            BIASED=bias is not None,
            BLOCK=BLOCK,
            DEPTH=DEPTH,
        )
    return scores


@triton.jit
def _put_pair_gradients(
    rows, columns, slots, scores, row_constant, row_gradient, pair_gradient, out, pairs, first, width, stride, unit,
    SCORE_GRADIENT: tl.constexpr, TAKES_POSITIVES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    numbers = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = numbers < pairs
    row = tl.load(rows + numbers, mask=inside, other=0)
    column = tl.load(columns + numbers, mask=inside, other=0) - first
    slot = tl.load(slots + numbers, mask=inside, other=-1)
    inside = inside & (column >= 0) & (column < width)
    positive = inside & (slot >= 0)
    gradient = tl.load(pair_gradient + slot, mask=positive, other=0.0)
    if TAKES_POSITIVES:
        score = tl.load(scores + slot, mask=positive, other=0.0) * unit
        constant = tl.load(row_constant + row, mask=positive, other=0.0)
        own = tl.sum(SCORE_GRADIENT(score[:, None], constant), 1)
        gradient += tl.where(positive, own * tl.load(row_gradient + row, mask=positive, other=0.0), 0.0)
    tl.store(out + row * stride + column, gradient.to(out.dtype.element_ty), mask=inside)


def put_pair_gradients(
    pairs: Pairs,
    reduction: Reduction,
    scores: Tensor,
    row_constant: Tensor,
    row_gradient: Tensor,
    pair_gradient: Tensor,
    first: int,
    out: Tensor,
) -> None:
    """Write the gradients of the pairs over whatever stands in their place in `out` [B, C], labels `first` and on.

    A positive has pair_gradient [positives], and its part in the sum if the reduction takes positives; a pair that is left
    out has none. scores [positives], row_constant [B] and row_gradient [B] are those of `score_gradients`.
    """
    count = len(pairs.rows)
    if count:
        _put_pair_gradients[(triton.cdiv(count, PLACES),)](
            pairs.rows,
            pairs.columns,
            pairs.slots,
            scores,
            row_constant,
            row_gradient,
            pair_gradient,
            out,
            count,
            first,
            out.shape[1],
            out.stride(0),
            reduction.unit,
            SCORE_GRADIENT=device_functions(reduction).score_gradient,
            TAKES_POSITIVES=reduction.takes_positives,
            BLOCK=PLACES,
        )
