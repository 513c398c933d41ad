"""Forward kernel: online softmax over the tokens that a block's segments reach."""

from __future__ import annotations

import triton
import triton.language as tl

from xmc.kernels.attention.triton_kernels.tiles import kept_by_dropout, load_block, reach, seen, store_block

__all__ = ["attend"]


@triton.jit(do_not_specialize=["tokens"])
def attend(
    query,
    key,
    value,
    bounds,
    seed,
    out,
    logsumexp,
    tokens,
    group,
    unit,
    window,
    dropout,
    query_token,
    query_head,
    key_token,
    key_head,
    value_token,
    value_head,
    out_token,
    out_head,
    CAUSAL: tl.constexpr,
    WINDOWED: tl.constexpr,
    DROPPED: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    DEPTH: tl.constexpr,
    SIZE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Values of a block of rows of one head, and the log-sum-exp of their scores in base 2; unit: scale · log2 e."""
    head, first = tl.program_id(1), tl.program_id(0) * ROWS
    rows = first + tl.arange(0, ROWS)
    starts = tl.load(bounds + rows, mask=rows < tokens, other=0)
    ends = tl.load(bounds + tokens + rows, mask=rows < tokens, other=0)
    q = load_block(query + head * query_head, rows, tokens, query_token, DEPTH, SIZE)
    key += (head // group) * key_head
    value += (head // group) * value_head
    highest = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    values = tl.zeros((ROWS, SIZE), dtype=tl.float32)
    start, stop = reach(bounds, first, min(first + ROWS, tokens), tokens, window, True, not CAUSAL, WINDOWED)
    for place in range(start, stop, KEYS):
        keys = place + tl.arange(0, KEYS)
        k = load_block(key, keys, stop, key_token, DEPTH, SIZE)
        v = load_block(value, keys, stop, value_token, DEPTH, SIZE)
        scores = tl.dot(q, k.T, input_precision=PRECISION) * unit
        mask = seen(rows[:, None], keys[None, :], starts[:, None], ends[:, None], window, CAUSAL, WINDOWED)
        scores = tl.where(mask, scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        # A row that has seen no token yet has no finite maximum; any finite shift keeps its exponentials at zero.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(scores - base[:, None])
        correction = tl.exp2(highest - base)
        total = total * correction + tl.sum(weights, 1)
        if DROPPED:
            weights = tl.where(kept_by_dropout(seed, head, rows[:, None], keys[None, :], dropout), weights, 0.0)
        values = tl.dot(weights.to(v.dtype), v, values * correction[:, None], input_precision=PRECISION)
        highest = higher
    total = tl.where(rows < tokens, total, 1.0)  # every token sees itself
    if DROPPED:
        values = values / (1.0 - dropout)
    store_block(out + head * out_head, values / total[:, None], rows, tokens, out_token, DEPTH, SIZE)
    tl.store(logsumexp + head * tokens + rows, highest + tl.log2(total), mask=rows < tokens)
