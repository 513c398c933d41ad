"""Device functions of the sum of softplus."""

from __future__ import annotations

import triton
import triton.language as tl

from xmc.kernels.triton_tiles.scores import log1p_exp2

__all__ = ["reduce_tile", "score_gradient"]


@triton.jit
def reduce_tile(scores, shift):
    """Σ log(1 + 2^s) of each row of the tile."""
    value = tl.sum(log1p_exp2(scores), 1)
    return value, value


@triton.jit
def score_gradient(scores, constant):
    """σ(s_ij)."""
    return 1.0 / (1.0 + tl.exp2(-scores))
