"""What every index demands of embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from xmc.arrays import Embeddings, Mask, Rows
from xmc.errors import InputError, StoreError

__all__ = ["require_count", "require_matrix", "require_rows"]


def require_count(value: Any, name: str) -> int:
    """An integer of at least 0; InputError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InputError(f"{name} must be a whole number, but is {value!r}.")
    if value < 0:
        raise InputError(f"{name} must be at least 0, but is {value}.")
    return int(value)


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


def require_rows(rows: Rows, allowed: Mask | None, covered: int) -> None:
    """Raise StoreError for rows from an engine's search that it does not have, or that a mask, bool [covered], leaves out.

    -1 stands for none. An engine whose file is damaged where nothing sees it may return such rows.
    """
    if not rows.size:
        return
    if (
        int(rows.max()) >= covered
        or int(rows.min()) < -1
        or (allowed is not None and not allowed[rows[rows >= 0]].all())
    ):
        raise StoreError(
            "The index found rows that it does not have: what it was loaded from is damaged. Index the labels again."
        )
