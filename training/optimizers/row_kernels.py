"""Adam on the rows that a step touched: numba kernels, one pass over parameter, moments and gradient factors."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from xmc.kernels.parallel import parallel_kernel

__all__ = ["adam_factored_rows", "adam_rows"]

Floats = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]


@numba.njit(cache=True, inline="always", fastmath=True)
def _adam(
    row: Floats, first: Floats, second: Floats, gradient: Floats, rate: float, beta1: float, beta2: float, root: float
) -> None:
    """One Adam update of a row; `rate` and `root` carry the bias corrections: rate/(1-β1^t), sqrt(1-β2^t)."""
    for column in range(len(row)):
        value = gradient[column]
        first[column] = beta1 * first[column] + (1 - beta1) * value
        second[column] = beta2 * second[column] + (1 - beta2) * value * value
        row[column] -= rate * first[column] / (np.sqrt(second[column]) / root + np.float32(1e-8))


@parallel_kernel(fastmath=True)
def adam_rows(
    table: Floats,
    first: Floats,
    second: Floats,
    rows: npt.NDArray[np.int64],
    gradients: Floats,
    rate: float,
    beta1: float,
    beta2: float,
    root: float,
) -> None:
    """Update table[rows[i]] with gradients[i]; `rows` are unique."""
    for place in numba.prange(len(rows)):
        row = rows[place]
        _adam(
            table[row],
            first[row],
            second[row],
            gradients[place],
            np.float32(rate),
            np.float32(beta1),
            np.float32(beta2),
            np.float32(root),
        )


@parallel_kernel(fastmath=True)
def adam_factored_rows(
    table: Floats,
    first: Floats,
    second: Floats,
    touched: Int32s,
    starts: npt.NDArray[np.int64],
    bags: Int32s,
    features: Int32s,
    coefficients: tuple[Floats, ...],
    gradients: tuple[Floats, ...],
    first_bags: npt.NDArray[np.int64],
    first_features: npt.NDArray[np.int64],
    alignments: Floats,
    rate: float,
    beta1: float,
    beta2: float,
    root: float,
) -> None:
    """Form the gradient of each touched row from its factors, and update the row.

    A row's gradient is Σ coefficient_f · G[bag of f] over its entries f. Coefficients and G come in parts, part p starting
    at bag first_bags[p] and feature first_features[p]. alignments[f] (float32 [nnz], output) is ⟨table row before the
    update, G[bag of f]⟩, from which the gradient of the feature's weight follows.
    """
    for place in numba.prange(len(touched)):
        row = table[touched[place]]
        gradient = np.zeros(len(row), np.float32)
        for entry in range(starts[place], starts[place + 1]):
            bag, feature = bags[entry], features[entry]
            part = 0
            while bag >= first_bags[part + 1]:
                part += 1
            source = gradients[part][bag - first_bags[part]]
            coefficient = coefficients[part][feature - first_features[part]]
            alignment = np.float32(0)
            for column in range(len(row)):
                gradient[column] += coefficient * source[column]
                alignment += source[column] * row[column]
            alignments[feature] = alignment
        _adam(
            row,
            first[touched[place]],
            second[touched[place]],
            gradient,
            np.float32(rate),
            np.float32(beta1),
            np.float32(beta2),
            np.float32(root),
        )
