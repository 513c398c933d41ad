"""What every index demands of embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from xmc.errors import InputError
from xmc.indexes.blocks import Embeddings

__all__ = ["require_matrix"]


def require_matrix(values: Any, dimension: int, name: str) -> Embeddings:
    """A contiguous float32 matrix [n, dimension]; InputError for another shape, and for NaN or infinities with their rows."""
    try:
        matrix = np.ascontiguousarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"The {name} are not a matrix of numbers: {error}.") from error
    if matrix.ndim != 2 or matrix.shape[1] != dimension:
        raise InputError(f"The {name} must have the shape (n, {dimension}), but have {matrix.shape}.")
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(matrix.sum(dtype=np.float64)):  # one pass; only a matrix that fails it is looked at by row
            return matrix
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        shown = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
        raise InputError(f"The {name} are NaN or infinite in {len(bad)} rows: {shown}.")
    return matrix
