"""Device functions of the sum of shifted sigmoids."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["reduce_tile", "score_gradient"]


@triton.jit
def reduce_tile(scores, shift, slope):
    """Σ σ(α (s + t)) of each row of the tile, and its derivative in t."""
    sigmoids = tl.sigmoid(slope * (scores + shift[:, None]))
    return tl.sum(sigmoids, 1), slope * tl.sum(sigmoids * (1.0 - sigmoids), 1)


@triton.jit
def score_gradient(scores, constant, slope):
    """α σ (1 - σ)."""
    sigmoids = tl.sigmoid(slope * (scores + constant[:, None]))
    return slope * sigmoids * (1.0 - sigmoids)
