"""Device functions of the log-sum-exp."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["reduce_tile", "score_gradient"]


@triton.jit
def reduce_tile(scores, shift):
    """The log-sum-exp of each row of the tile; -inf for a row without scores."""
    highest = tl.max(scores, 1)
    base = tl.where(highest == float("-inf"), 0.0, highest)
    value = base + tl.log2(tl.sum(tl.exp2(scores - base[:, None]), 1))
    return value, value


@triton.jit
def score_gradient(scores, constant):
    """The softmax, 2^(s_ij - N_i)."""
    return tl.exp2(scores - constant[:, None])
