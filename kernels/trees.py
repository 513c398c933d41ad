"""Sums of decision trees: rows of features to the sum of the leaves that they come to."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from xmc.kernels.parallel import parallel_kernel

__all__ = ["sum_of_trees"]

ROWS_AT_ONCE = 256
"""Rows that go through a tree while its nodes are in the nearest cache."""


@parallel_kernel(nogil=True)
def sum_of_trees(
    values: Any,
    roots: Any,
    feature: Any,
    threshold: Any,
    left: Any,
    right: Any,
    missing_left: Any,
    value: Any,
    total: Any,
) -> None:
    """Add to each row's total the value of the leaf that it comes to in each tree, in the order of the trees.

    values: float32 [rows, F], NaN for a missing one. roots: int32 [trees]. feature (int32, -1 at a leaf), threshold (float32),
    left, right (int32), missing_left (bool), value (float64): by node. total: float64 [rows], changed in place.
    """
    rows = values.shape[0]
    for block in numba.prange((rows + ROWS_AT_ONCE - 1) // ROWS_AT_ONCE):
        first = block * ROWS_AT_ONCE
        last = min(rows, first + ROWS_AT_ONCE)
        for tree in range(roots.shape[0]):
            for row in range(first, last):
                node = roots[tree]
                while feature[node] >= 0:
                    number = values[row, feature[node]]
                    if np.isnan(number):
                        goes_left = missing_left[node]
                    else:
                        goes_left = number <= threshold[node]
                    node = left[node] if goes_left else right[node]
                total[row] += value[node]
