"""The special pairs of a batch, sorted into the tiles that they lie in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xmc.kernels.entries import Entries
from xmc.kernels.triton_tiles.heuristics import TileShape

__all__ = ["Buckets"]


@dataclass(frozen=True)
class Buckets:
    """Entries of tile (row block r, label tile t), number n = r · label_tiles + t, are [offsets[n], offsets[n + 1]).

    offsets: int64 [row_blocks · label_tiles + 1]. rows, columns: int64 [n], query and place in the order of the labels.
    slots: int64 [n], as in `Entries`, never None.
    """

    offsets: Tensor
    rows: Tensor
    columns: Tensor
    slots: Tensor
    row_blocks: int
    label_tiles: int

    @classmethod
    def of(cls, entries: Entries, queries: int, labels: int, shape: TileShape) -> Buckets:
        """Sort them."""
        row_blocks, label_tiles = -(-queries // shape.rows), -(-labels // shape.labels)
        rows = entries.rows
        columns = entries.columns
        slots = torch.arange(len(rows), device=rows.device) if entries.slots is None else entries.slots
        numbers = torch.div(rows, shape.rows, rounding_mode="floor") * label_tiles
        numbers, order = (numbers + torch.div(columns, shape.labels, rounding_mode="floor")).sort(stable=True)
        edges = torch.arange(row_blocks * label_tiles + 1, device=rows.device)
        offsets = torch.searchsorted(numbers, edges)
        return cls(offsets, rows[order], columns[order], slots[order], row_blocks, label_tiles)
