"""Device functions of the sum of softplus."""

from __future__ import annotations

import triton
import triton.language as tl

from xmc.kernels.triton_tiles.scores import log1p_exp

__all__ = ["reduce_tile", "score_gradient"]


@triton.jit
def reduce_tile(scores, shift, slope):
    """Σ log(1 + exp(s)) of each row of the tile."""
    value = tl.sum(log1p_exp(scores), 1)
    return value, value


@triton.jit
def score_gradient(scores, constant, slope):
    """σ(s_ij)."""
    return tl.sigmoid(scores)
