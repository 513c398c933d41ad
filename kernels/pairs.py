"""Scores of chosen (query, label) pairs, as a margin loss needs them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xmc.errors import NotFiniteError
from xmc.kernels.devices import values_are_free, without_autocast

__all__ = ["pair_scores"]

CHUNK_BYTES = 16 * 2**20


class _PairScores(torch.autograd.Function):
    """dq_i = Σ_p ds_p · z_c(p) and dz_j = Σ_p ds_p · q_r(p), over as many pairs at once as fit a chunk."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, labels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(queries, labels, rows, columns)
        dtype = torch.promote_types(queries.dtype, torch.float32)
        scores = queries.new_empty(len(rows), dtype=dtype)
        for chunk in _chunks(len(rows), queries.shape[1], dtype):
            scores[chunk] = torch.linalg.vecdot(queries[rows[chunk]].to(dtype), labels[columns[chunk]].to(dtype))
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        queries, labels, rows, columns = ctx.saved_tensors
        dtype = gradient.dtype
        gradients: list[Tensor | None] = []
        for needed, tensor, positions, opposite, opposite_positions in (
            (ctx.needs_input_grad[0], queries, rows, labels, columns),
            (ctx.needs_input_grad[1], labels, columns, queries, rows),
        ):
            if not needed:
                gradients.append(None)
                continue
            total = tensor.new_zeros(tensor.shape, dtype=dtype)
            for chunk in _chunks(len(rows), queries.shape[1], dtype):
                total.index_add_(
                    0, positions[chunk], opposite[opposite_positions[chunk]].to(dtype) * gradient[chunk, None]
                )
            gradients.append(total.to(tensor.dtype))
        return (*gradients, None, None)


def pair_scores(queries: Tensor, labels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Inner products q_r·z_c of n pairs (r, c), float32 (float64 for float64 input), [n].

    queries: [B, D], labels: [L, D]. rows, columns: int64 [n], in [0, B) and [0, L). Differentiable, once, in queries and
    labels; extra memory is that of the gradients and a chunk of 16 MiB.

    Raises NotFiniteError, an InputError, for NaN, or infinities that cancel, on a CPU; on a GPU the scores are NaN.
    """
    with without_autocast(queries):
        scores: Tensor = _PairScores.apply(queries, labels, rows, columns)  # type: ignore[no-untyped-call]
    if values_are_free(scores) and bool(scores.isnan().any()):
        raise NotFiniteError("queries or labels hold NaN, or infinities that cancel, which no loss can be made of.")
    return scores


def _chunks(pairs: int, dimension: int, dtype: torch.dtype) -> list[slice]:
    step = max(1, CHUNK_BYTES // (max(dimension, 1) * dtype.itemsize))
    return [slice(start, start + step) for start in range(0, pairs, step)]
