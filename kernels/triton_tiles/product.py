"""Queries and labels as product kernels take them: shapes, descriptors, launches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from xmc.errors import ConfigError
from xmc.kernels.triton_tiles.alignment import aligned, described
from xmc.kernels.triton_tiles.eight_bit import eight_bit_rows
from xmc.kernels.triton_tiles.heuristics import (
    Machine,
    TileShape,
    dot_precision,
    interpreting,
    machine_of,
    storing_shape,
    tile_shape,
)

__all__ = ["Product"]

EIGHT_BIT_CAPABILITY = 89
"""The least capability of a GPU that multiplies float8."""


@dataclass(frozen=True)
class Product:
    """Scores of B queries and L labels as a grid of tiles: row_blocks x label_tiles of `shape`.

    queries: [B, D'], labels: [L, D'], aligned, of one dtype; D' is D and zeros up to the alignment. query_scales: [B],
    label_scales: [L], float32, what rows in eight bits are multiplied by; None for others.
    """

    queries: Tensor
    labels: Tensor
    shape: TileShape
    machine: Machine
    query_scales: Tensor | None = None
    label_scales: Tensor | None = None

    @classmethod
    def of(cls, queries: Tensor, labels: Tensor) -> Product:
        """Copies what is not contiguous, and pads what is not aligned, once.

        Queries and labels of two dtypes are multiplied in float32. The interpreter multiplies raw bits of bfloat16, so it
        gets float32.
        """
        if queries.dtype != labels.dtype or (interpreting() and queries.dtype == torch.bfloat16):
            queries, labels = queries.float(), labels.float()
        machine = machine_of(queries.device)
        return cls(aligned(queries), aligned(labels), tile_shape(queries.dtype, machine), machine)

    @classmethod
    def eight_bit(cls, queries: Tensor, labels: Tensor) -> Product:
        """The same from copies in float8 e4m3, with a scale a row; the interpreter gets their numbers in float32.

        Raises ConfigError for a GPU that does not multiply them.
        """
        machine = machine_of(queries.device)
        if 0 < machine.capability < EIGHT_BIT_CAPABILITY:
            raise ConfigError(
                f'negatives_dtype="float8" needs a GPU of capability 8.9 or higher, but this one has '
                f"{machine.capability / 10}; leave it out."
            )
        (q, query_scales), (z, label_scales) = eight_bit_rows(queries), eight_bit_rows(labels)
        if interpreting():
            q, z = q.float(), z.float()
        return cls(q, z, tile_shape(q.dtype, machine), machine, query_scales, label_scales)

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
        chosen = slice(first * self.shape.labels, (first + tiles) * self.shape.labels)
        scales = None if self.label_scales is None else self.label_scales[chosen]
        return replace(self, labels=self.labels[chosen], label_scales=scales)

    def storing(self, dtype: torch.dtype) -> Product:
        """The same for a kernel that stores its tiles in this dtype."""
        return replace(self, shape=storing_shape(self.shape, self.queries.dtype, dtype, self.machine))

    @property
    def scales(self) -> dict[str, Any]:
        """Arguments of kernels that take rows in eight bits."""
        given = self.query_scales is not None
        return {"query_scales": self.query_scales, "label_scales": self.label_scales, "SCALED": given}

    def launch(self, kernel: Any, **arguments: Any) -> None:
        """Run a persistent kernel over all tiles, with what every product kernel takes and what it takes besides.

        arguments: by name; those that every kernel takes may be among them, of a kernel that cuts labels into other tiles.
        """
        shape, described_ = self.shape, self.machine.bulk_copies
        tiles = self.row_blocks * arguments.setdefault("label_tiles", self.label_tiles)
        if not tiles:
            return
        if "labels" not in arguments:
            arguments["labels"] = described(self.labels, shape.labels, shape.depth) if described_ else self.labels
        arguments.setdefault("total", len(self.labels))
        kernel[(min(tiles, self.machine.programs),)](
            queries=described(self.queries, shape.rows, shape.depth) if described_ else self.queries,
            count=len(self.queries),
            depth=self.queries.shape[1],
            stride_q=self.queries.stride(0),
            stride_z=self.labels.stride(0),
            row_blocks=self.row_blocks,
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
