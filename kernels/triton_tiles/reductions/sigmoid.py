"""Device functions of the sum of shifted sigmoids."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["reduce_tile", "score_gradient"]


@triton.jit
def reduce_tile(scores, shift):
    """Σ σ(s + t) of each row of the tile, and its derivative in t."""
    sigmoids = 1.0 / (1.0 + tl.exp2(-(scores + shift[:, None])))
    return tl.sum(sigmoids, 1), tl.sum(sigmoids * (1.0 - sigmoids), 1)


@triton.jit
def score_gradient(scores, constant):
    """σ (1 - σ)."""
    sigmoids = 1.0 / (1.0 + tl.exp2(-(scores + constant[:, None])))
    return sigmoids - sigmoids * sigmoids
