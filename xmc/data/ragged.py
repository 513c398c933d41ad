"""Rows of different lengths, stored one after another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["places_of"]


def places_of(
    offsets: npt.NDArray[np.int64], rows: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the values of some rows are, int64 [total], and the offsets that they have then, int64 [m + 1].

    offsets: int64 [n + 1], row `i` has the values from `offsets[i]` to `offsets[i + 1]`. rows: integers [m], repeats allowed.
    """
    lengths = np.diff(offsets)[rows]
    moved = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(moved[-1]) + np.repeat(offsets[:-1][rows] - moved[:-1], lengths), moved
