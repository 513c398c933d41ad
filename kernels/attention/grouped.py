"""Attention over segments where their offsets are free to read: equal lengths together, a piece at a time.

Processor time of one thread, forward and backward, of MiniLM's heads (12 of size 32) and 2,050 tokens in 56 texts of 3 to
64 tokens: a fused call for each length 16.4 ms in float32, matrix products 17.5 ms, one call padded to the longest text
27.5 ms; in 268 label texts of 7.7 tokens 14.5, 15.5 and 72.8 ms. The fused call holds no scores in memory, however long a
text is. In bfloat16 its backward pass is several times slower (63 and 47 ms in all), so 16-bit inputs are computed in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.attention import explicit, fused
from xmc.kernels.attention.options import AttentionOptions
from xmc.kernels.attention.pieces import Runs, pieces_of

__all__ = ["backward", "computing_dtype", "forward"]


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that inputs of a dtype are computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _is_fused(query: Tensor, options: AttentionOptions) -> bool:
    return query.device.type == "cpu" and not options.dropout


def _arranged(runs: Runs, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value [T, H, D] in the runs' order, those of the keys repeated for every head that looks at them."""
    dtype, group = computing_dtype(query.dtype), query.shape[1] // key.shape[1]
    query, key, value = (runs.arranged(tensor, dtype) for tensor in (query, key, value))
    if group > 1:
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    return query, key, value


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    longest: int,
    options: AttentionOptions,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Values [T, H, D] in the dtype of the query, and log-sum-exp [T, H] in the one computed in, in the runs' order.

    Arguments as in `segment_attention`; seed: int64 [1], with dropout.
    """
    runs, dtype = Runs.from_offsets(offsets, len(query), longest), query.dtype
    query, key, value = _arranged(runs, query, key, value)
    out, logsumexp = query.new_empty(query.shape), query.new_empty(query.shape[:2])
    is_fused, random = _is_fused(query, options), explicit.generator_of(seed)
    for piece in pieces_of(runs, query.shape[1], options, bounded=not is_fused):
        q, k, v = piece.rows(query), piece.keys(key), piece.keys(value)
        if is_fused:
            values, sums = fused.forward(q, k, v, piece, options)
        else:
            values, sums = explicit.forward(q, k, v, piece, options, random)
        piece.rows(out).copy_(values)
        piece.rows(logsumexp).copy_(sums)
    return runs.restored(out, dtype), logsumexp


def backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    offsets: Tensor,
    longest: int,
    options: AttentionOptions,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, contiguous, from that of the values and from what `forward` returned."""
    runs, dtype, heads = Runs.from_offsets(offsets, len(query), longest), query.dtype, key.shape[1]
    query, key, value = _arranged(runs, query, key, value)
    gradient, out = runs.arranged(gradient, query.dtype), runs.arranged(out, query.dtype)
    of_query, of_key, of_value = (torch.empty_like(query, memory_format=torch.contiguous_format) for _ in range(3))
    is_fused, random = _is_fused(query, options), explicit.generator_of(seed)
    for piece in pieces_of(runs, query.shape[1], options, bounded=not is_fused):
        given = (piece.rows(gradient), piece.rows(query), piece.keys(key), piece.keys(value), piece.rows(out))
        sums = piece.rows(logsumexp)
        if is_fused:
            gradients = fused.backward(*given, sums, piece, options)
        else:
            gradients = explicit.backward(*given, sums, piece, options, random)
        piece.rows(of_query).copy_(gradients[0])
        for total, part in ((of_key, gradients[1]), (of_value, gradients[2])):
            if piece.all_rows:
                piece.keys(total).copy_(part)
            else:  # further pieces of these segments add to their keys
                if piece.top == 0:
                    piece.segments(total).zero_()
                piece.keys(total).add_(part)
    if heads < query.shape[1]:
        of_key, of_value = (total.unflatten(1, (heads, -1)).sum(2) for total in (of_key, of_value))
    of_query, of_key, of_value = (runs.restored(total, dtype) for total in (of_query, of_key, of_value))
    return of_query, of_key, of_value
