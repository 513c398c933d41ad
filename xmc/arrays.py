"""The array types that all rooms share, each named once, and rows of different lengths stored one after another."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Embeddings", "Ids", "Mask", "Rows", "places_of"]

Embeddings: TypeAlias = npt.NDArray[np.float32]
"""float32 [n, D]; scores, float32 [n, k], are of the same type."""
Rows: TypeAlias = npt.NDArray[np.int64]
"""Row numbers, int64; -1 for none."""
Ids: TypeAlias = npt.NDArray[np.int64]
"""Ids of labels, int64; -1 for none. An id stays with its label; a row may change."""
Mask: TypeAlias = npt.NDArray[np.bool_]
"""bool, one value a row."""


def places_of(
    offsets: npt.NDArray[np.int64], rows: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The places of the values of some rows, int64 [total], and the offsets that these rows have then, int64 [m + 1].

    offsets: int64 [n + 1], row `i` has the values from `offsets[i]` to `offsets[i + 1]`. rows: integers [m], repeats allowed.
    """
    lengths = np.diff(offsets)[rows]
    moved = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(moved[-1]) + np.repeat(offsets[:-1][rows] - moved[:-1], lengths), moved
