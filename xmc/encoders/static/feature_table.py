"""One hashed table of vectors shared by features of all kinds: weighted sums of its rows, and their gradients.

The numba kernels here are the static encoder's whole cost, so they are written for memory traffic: the forward pass
reads each feature's row once; the gradient of the table is never built, but kept as its two factors (which features each
text has, and the gradient of each text's embedding), from which the optimizer forms a touched row's gradient in cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from xmc.encoders.static.formulas import scrambled
from xmc.kernels.parallel import parallel_kernel

__all__ = ["Bags", "Transposed", "bag_sums", "locate", "transpose", "weigh", "weight_gradients"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bags:
    """n bags of features, each feature with its row in the table and its coefficient.

    values: uint32 [nnz], rows: int32 [nnz], coefficients: float32 [nnz] (0 for a dropped feature), offsets: int64 [n + 1].
    """

    values: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.int32]
    coefficients: Floats
    offsets: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Transposed:
    """The features of some bags in order of table row: row `touched[t]` has entries starts[t] to starts[t + 1].

    touched: int32 [T], starts: int64 [T + 1]; bags, features: int32 [entries]: the bag and the place among all features
    that an entry comes from.
    """

    touched: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    bags: npt.NDArray[np.int32]
    features: npt.NDArray[np.int32]


_scrambled: Any = numba.njit(cache=True, inline="always")(scrambled)


@parallel_kernel()
def locate(values: npt.NDArray[np.uint32], table_rows: int, rows: npt.NDArray[np.int32]) -> None:
    """The row of each feature [nnz], in [0, table_rows).

    The kind of a feature is part of its value, so each kind probes the table with its own hash.
    """
    for feature in numba.prange(len(values)):
        rows[feature] = np.int32(_scrambled(np.uint64(values[feature]), np.uint64(1)) % np.uint64(table_rows))


@numba.njit(cache=True, inline="always")
def _slot(value: Any, slots: int) -> Any:
    """The place of a feature's weight; its hash is independent of the row's."""
    return _scrambled(np.uint64(value), np.uint64(0)) % np.uint64(slots)


@parallel_kernel()
def weigh(values: npt.NDArray[np.uint32], scales: Floats, weights: Floats, coefficients: Floats) -> None:
    """coefficients[f] = scales[kind of f] · weights[slot of f]; `scales` has an entry for every value of the kind's bits."""
    for feature in numba.prange(len(values)):
        value = values[feature]
        kind = value & np.uint32(len(scales) - 1)
        coefficients[feature] = scales[kind] * weights[_slot(value, len(weights))]


@numba.njit(cache=True)
def weight_gradients(
    values: npt.NDArray[np.uint32], coefficients: Floats, alignments: Floats, totals: npt.NDArray[np.float64]
) -> None:
    """Add the gradient of each logarithm of a weight to totals [slots]: Σ coefficient · alignment over its features f.

    alignments[f]: the gradient of f's coefficient. It enters times the coefficient, since d(c·a)/d(log w) = c·a for
    c = scale · exp(log w).
    """
    for feature in range(len(values)):
        if coefficients[feature] != 0:
            totals[_slot(values[feature], len(totals))] += coefficients[feature] * alignments[feature]


@parallel_kernel(fastmath=True)
def bag_sums(
    table: Floats, rows: npt.NDArray[np.int32], coefficients: Floats, offsets: npt.NDArray[np.int64], out: Floats
) -> None:
    """out[i] = Σ_f coefficients[f] · table[rows[f]], over the features f of bag i; out is float32 [n, D]."""
    for bag in numba.prange(len(offsets) - 1):
        total = out[bag]
        total[:] = 0
        for feature in range(offsets[bag], offsets[bag + 1]):
            coefficient = coefficients[feature]
            if coefficient != 0:
                row = table[rows[feature]]
                for column in range(len(row)):
                    total[column] += coefficient * row[column]


def transpose(parts: Sequence[Bags], table_rows: int) -> Transposed:
    """Group the features that have a coefficient by the table row they probe; linear time, stable order.

    Bags and features are numbered through all parts.
    """
    next_entry = np.zeros(table_rows + 1, np.int64)
    for bags in parts:
        _count_rows(bags.rows, bags.coefficients, next_entry)
    np.cumsum(next_entry, out=next_entry)
    touched = np.flatnonzero(np.diff(next_entry)).astype(np.int32)
    starts = np.append(next_entry[touched], next_entry[-1])
    bag_of, feature_of = np.empty(next_entry[-1], np.int32), np.empty(next_entry[-1], np.int32)
    first_bag = first_feature = 0
    for bags in parts:
        _fill_rows(bags.rows, bags.coefficients, bags.offsets, next_entry, bag_of, feature_of, first_bag, first_feature)
        first_bag, first_feature = first_bag + len(bags.offsets) - 1, first_feature + len(bags.rows)
    return Transposed(touched, starts, bag_of, feature_of)


@numba.njit(cache=True)
def _count_rows(rows: npt.NDArray[np.int32], coefficients: Floats, next_entry: npt.NDArray[np.int64]) -> None:
    """Add the number of entries of each row r to next_entry[r + 1]."""
    for feature in range(len(rows)):
        if coefficients[feature] != 0:
            next_entry[rows[feature] + 1] += 1


@numba.njit(cache=True)
def _fill_rows(
    rows: npt.NDArray[np.int32],
    coefficients: Floats,
    offsets: npt.NDArray[np.int64],
    next_entry: npt.NDArray[np.int64],
    bag_of: npt.NDArray[np.int32],
    feature_of: npt.NDArray[np.int32],
    first_bag: int,
    first_feature: int,
) -> None:
    """Write the entries of each row r from next_entry[r] on, and advance it by their number."""
    for bag in range(len(offsets) - 1):
        for feature in range(offsets[bag], offsets[bag + 1]):
            if coefficients[feature] != 0:
                entry = next_entry[rows[feature]]
                next_entry[rows[feature]] = entry + 1
                bag_of[entry] = first_bag + bag
                feature_of[entry] = first_feature + feature
