"""Backward kernels: probabilities once more from the log-sum-exp; gradients of the queries first, then of keys and values."""

from __future__ import annotations

import triton
import triton.language as tl

from xmc.kernels.attention.triton_kernels.tiles import kept_by_dropout, load_block, reach, seen, store_block

__all__ = ["key_gradients", "query_gradients"]


@triton.jit(do_not_specialize=["tokens"])
def query_gradients(
    gradient,
    query,
    key,
    value,
    out,
    logsumexp,
    inner,
    bounds,
    seed,
    of_query,
    tokens,
    group,
    unit,
    scale,
    window,
    dropout,
    gradient_token,
    gradient_head,
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
    """Gradients of a block of queries of one head, laid out as `out`, and `inner`: each row's gradient · values."""
    head, first = tl.program_id(1), tl.program_id(0) * ROWS
    rows = first + tl.arange(0, ROWS)
    inside = rows < tokens
    starts = tl.load(bounds + rows, mask=inside, other=0)
    ends = tl.load(bounds + tokens + rows, mask=inside, other=0)
    q = load_block(query + head * query_head, rows, tokens, query_token, DEPTH, SIZE)
    incoming = load_block(gradient + head * gradient_head, rows, tokens, gradient_token, DEPTH, SIZE)
    values = load_block(out + head * out_head, rows, tokens, out_token, DEPTH, SIZE)
    products = tl.sum(incoming.to(tl.float32) * values.to(tl.float32), 1)
    tl.store(inner + head * tokens + rows, products, mask=inside)
    sums = tl.load(logsumexp + head * tokens + rows, mask=inside, other=0.0)
    key += (head // group) * key_head
    value += (head // group) * value_head
    total = tl.zeros((ROWS, SIZE), dtype=tl.float32)
    start, stop = reach(bounds, first, min(first + ROWS, tokens), tokens, window, True, not CAUSAL, WINDOWED)
    for place in range(start, stop, KEYS):
        keys = place + tl.arange(0, KEYS)
        k = load_block(key, keys, stop, key_token, DEPTH, SIZE)
        v = load_block(value, keys, stop, value_token, DEPTH, SIZE)
        scores = tl.dot(q, k.T, input_precision=PRECISION) * unit
        mask = seen(rows[:, None], keys[None, :], starts[:, None], ends[:, None], window, CAUSAL, WINDOWED)
        probabilities = tl.where(mask, tl.exp2(scores - sums[:, None]), 0.0)
        of_weights = tl.dot(incoming, v.T, input_precision=PRECISION)
        if DROPPED:
            kept = kept_by_dropout(seed, head, rows[:, None], keys[None, :], dropout)
            of_weights = tl.where(kept, of_weights / (1.0 - dropout), 0.0)
        of_scores = probabilities * (of_weights - products[:, None])
        total = tl.dot(of_scores.to(k.dtype), k, total, input_precision=PRECISION)
    store_block(of_query + head * out_head, total * scale, rows, tokens, out_token, DEPTH, SIZE)


@triton.jit(do_not_specialize=["tokens"])
def key_gradients(
    gradient,
    query,
    key,
    value,
    logsumexp,
    inner,
    bounds,
    seed,
    of_key,
    of_value,
    tokens,
    group,
    unit,
    scale,
    window,
    dropout,
    gradient_token,
    gradient_head,
    query_token,
    query_head,
    key_token,
    key_head,
    value_token,
    value_head,
    result_token,
    result_head,
    CAUSAL: tl.constexpr,
    WINDOWED: tl.constexpr,
    DROPPED: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    DEPTH: tl.constexpr,
    SIZE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of a block of keys and values of one head, from all rows of all heads that look at them, in one order."""
    head, first = tl.program_id(1), tl.program_id(0) * KEYS
    keys = first + tl.arange(0, KEYS)
    k = load_block(key + head * key_head, keys, tokens, key_token, DEPTH, SIZE)
    v = load_block(value + head * value_head, keys, tokens, value_token, DEPTH, SIZE)
    total_of_key = tl.zeros((KEYS, SIZE), dtype=tl.float32)
    total_of_value = tl.zeros((KEYS, SIZE), dtype=tl.float32)
    start, stop = reach(bounds, first, min(first + KEYS, tokens), tokens, window, not CAUSAL, True, WINDOWED)
    for row_head in range(head * group, head * group + group):
        for place in range(start, stop, ROWS):
            rows = place + tl.arange(0, ROWS)
            inside = rows < stop
            starts = tl.load(bounds + rows, mask=inside, other=0)
            ends = tl.load(bounds + tokens + rows, mask=inside, other=0)
            sums = tl.load(logsumexp + row_head * tokens + rows, mask=inside, other=0.0)
            products = tl.load(inner + row_head * tokens + rows, mask=inside, other=0.0)
            q = load_block(query + row_head * query_head, rows, stop, query_token, DEPTH, SIZE)
            incoming = load_block(gradient + row_head * gradient_head, rows, stop, gradient_token, DEPTH, SIZE)
            scores = tl.dot(k, q.T, input_precision=PRECISION) * unit  # keys by rows
            mask = seen(rows[None, :], keys[:, None], starts[None, :], ends[None, :], window, CAUSAL, WINDOWED)
            probabilities = tl.where(mask, tl.exp2(scores - sums[None, :]), 0.0)
            weights = probabilities
            of_weights = tl.dot(v, incoming.T, input_precision=PRECISION)
            if DROPPED:
                kept = kept_by_dropout(seed, row_head, rows[None, :], keys[:, None], dropout)
                weights = tl.where(kept, weights / (1.0 - dropout), 0.0)
                of_weights = tl.where(kept, of_weights / (1.0 - dropout), 0.0)
            total_of_value = tl.dot(weights.to(v.dtype), incoming, total_of_value, input_precision=PRECISION)
            of_scores = probabilities * (of_weights - products[None, :])
            total_of_key = tl.dot(of_scores.to(k.dtype), q, total_of_key, input_precision=PRECISION)
    store_block(of_key + head * result_head, total_of_key * scale, keys, tokens, result_token, DEPTH, SIZE)
    store_block(of_value + head * result_head, total_of_value, keys, tokens, result_token, DEPTH, SIZE)
