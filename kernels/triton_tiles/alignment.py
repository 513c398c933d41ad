"""Matrices as bulk copies take them: rows that are contiguous and aligned, and descriptors of them."""

from __future__ import annotations

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

__all__ = ["aligned", "described"]

ALIGNMENT = 16
"""Bytes that the beginning and every row of a matrix are a multiple of."""


def described(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A descriptor of an aligned matrix whose blocks are [rows, columns]."""
    return TensorDescriptor(matrix, list(matrix.shape), [matrix.stride(0), 1], [rows, columns])


def aligned(matrix: Tensor) -> Tensor:
    """The matrix itself, or a copy whose rows are contiguous and aligned, with zeros behind them."""
    unit = ALIGNMENT // matrix.element_size()
    width = max(unit, -(-matrix.shape[1] // unit) * unit)
    if width != matrix.shape[1]:
        padded = matrix.new_zeros((len(matrix), width))
        padded[:, : matrix.shape[1]] = matrix
        return padded
    fits = matrix.stride(1) == 1 and matrix.stride(0) % unit == 0 and matrix.stride(0) >= width
    return (
        matrix if fits and matrix.data_ptr() % ALIGNMENT == 0 else matrix.clone(memory_format=torch.contiguous_format)
    )
