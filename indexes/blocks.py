"""Label embeddings that grow: a chain of blocks, so that appending neither copies nor moves what is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["EmbeddingBlocks", "Embeddings", "Mask", "Rows"]

Embeddings = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LEAST_ROOM = 4096
"""Rows that a new block has room for, at least."""


class _Room:
    """Memory for a block, of which the first `taken` rows are in use."""

    def __init__(self, rows: int, dimension: int) -> None:
        self.rows: Embeddings = np.empty((rows, dimension), np.float32)
        self.taken = 0


class EmbeddingBlocks:
    """Embeddings float32 [n, D] that never change, as a chain of blocks; `append` makes a longer chain.

    Both chains share memory: new rows go behind the last block where it has room that no other chain took, and into a
    new block otherwise. Appends must come one at a time; any number of threads may read meanwhile.
    """

    def __init__(self, blocks: Sequence[Embeddings], room: _Room | None = None) -> None:
        self._blocks = tuple(blocks)
        self._starts = np.cumsum([0, *map(len, self._blocks)])
        self._room = room

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def dimension(self) -> int:
        """D."""
        return int(self._blocks[0].shape[1])

    def __iter__(self) -> Iterator[tuple[int, Embeddings]]:
        """The first row of each block, and the block."""
        return zip(self._starts[:-1].tolist(), self._blocks, strict=True)

    def append(self, rows: Embeddings) -> EmbeddingBlocks:
        """The chain with more rows, which are copied."""
        room, blocks = self._room, self._blocks
        if room is None or room.taken != len(blocks[-1]) or room.taken + len(rows) > len(room.rows):
            room = _Room(max(len(rows), LEAST_ROOM, len(self) // 4), self.dimension)
        else:
            blocks = blocks[:-1]
        room.rows[room.taken : room.taken + len(rows)] = rows
        room.taken += len(rows)
        return EmbeddingBlocks([*blocks, room.rows[: room.taken]], room)

    def take(self, rows: Rows) -> Embeddings:
        """A copy of some rows, in the order given."""
        if len(self._blocks) == 1:
            return self._blocks[0][rows]
        taken = np.empty((len(rows), self.dimension), np.float32)
        home = np.searchsorted(self._starts, rows, side="right") - 1
        for number, (start, block) in enumerate(self):
            here = np.flatnonzero(home == number)
            taken[here] = block[rows[here] - start]
        return taken

    def since(self, first: int) -> EmbeddingBlocks:
        """The chain of the rows from `first` on, over the same memory."""
        kept = [block[max(0, first - start) :] for start, block in self if start + len(block) > first]
        return EmbeddingBlocks(kept or [self._blocks[0][:0]])

    def whole(self) -> Embeddings:
        """All rows as one array: a copy only where there are several blocks."""
        return self._blocks[0] if len(self._blocks) == 1 else np.concatenate(self._blocks)
