"""Queries and labels as product kernels take them: shapes, descriptors, launches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from xmc.kernels.triton_tiles.heuristics import Machine, TileShape, dot_precision, interpreting, machine_of, tile_shape

__all__ = ["ALIGNMENT", "Product", "aligned", "described"]

ALIGNMENT = 16
"""Bytes that the beginning and every row of a matrix are a multiple of, which bulk copies ask for."""


@dataclass(frozen=True)
class Product:
    """Scores of B queries and L labels as a grid of tiles: row_blocks x label_tiles of `shape`.

    queries: [B, D'], labels: [L, D'], aligned, of one dtype; D' is D and zeros up to the alignment.
    """

    queries: Tensor
    labels: Tensor
    shape: TileShape
    machine: Machine

    @classmethod
    def of(cls, queries: Tensor, labels: Tensor) -> Product:
        """Copies what is not contiguous, and pads what is not aligned, once.

        Queries and labels of two dtypes are multiplied in float32. The interpreter multiplies raw bits of bfloat16 and
        float8, so it gets float32.
        """
        wide = interpreting() and (queries.dtype == torch.bfloat16 or queries.dtype.itemsize == 1)
        if wide or queries.dtype != labels.dtype:
            queries, labels = queries.float(), labels.float()
        machine = machine_of(queries.device)
        return cls(aligned(queries), aligned(labels), tile_shape(queries.dtype, machine), machine)

    @property
    def row_blocks(self) -> int:
        """Number of blocks of queries."""
        return -(-len(self.queries) // self.shape.rows)

    @property
    def label_tiles(self) -> int:
        """Number of tiles of labels."""
        return -(-len(self.labels) // self.shape.labels)

    def part(self, first: int, tiles: int) -> Product:
        """The same queries with the labels of `tiles` tiles from the `first` on."""
        labels = self.labels[first * self.shape.labels : (first + tiles) * self.shape.labels]
        return Product(self.queries, labels, self.shape, self.machine)

    def launch(self, kernel: Any, **arguments: Any) -> None:
        """Run a persistent kernel over all tiles, with what every product kernel takes and what it takes besides."""
        tiles = self.row_blocks * self.label_tiles
        if not tiles:
            return
        shape, described_ = self.shape, self.machine.bulk_copies
        kernel[(min(tiles, self.machine.programs),)](
            queries=described(self.queries, shape.rows, shape.depth) if described_ else self.queries,
            labels=described(self.labels, shape.labels, shape.depth) if described_ else self.labels,
            count=len(self.queries),
            total=len(self.labels),
            depth=self.queries.shape[1],
            stride_q=self.queries.stride(0),
            stride_z=self.labels.stride(0),
            row_blocks=self.row_blocks,
            label_tiles=self.label_tiles,
            DESCRIBED=described_,
            ROWS=shape.rows,
            LABELS=shape.labels,
            DEPTH=shape.depth,
            GROUP=shape.group,
            PRECISION=dot_precision(),
            num_warps=shape.warps,
            num_stages=shape.stages,
            **arguments,
        )

    def grid(self, elements: int, block: int) -> tuple[int]:
        """A grid of one dimension with a program for each `block` elements."""
        return (triton.cdiv(elements, block),)


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
