"""Rows that grow and never change: embeddings in a chain of blocks, and columns, so that appending hardly copies."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.arrays import Embeddings, Rows
from xmc.kernels.forks import renew_in_children

__all__ = ["EmbeddingBlocks", "GrowingColumn"]

LEAST_ROOM = 4096
"""Rows that a new block has room for, at least."""


class _Room:
    """Memory for rows; those that are in use come first. Any number of threads may try to extend it."""

    def __init__(self, rows: int, like: npt.NDArray[Any]) -> None:
        self._values = np.empty((rows, *like.shape[1:]), like.dtype)
        self._taken = 0
        self.renew_locks()
        renew_in_children(self)

    def renew_locks(self) -> None:
        """See xmc.kernels.forks.Renewable."""
        self._lock = threading.Lock()

    def extended(self, taken: int, values: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """The first `taken` rows and `values` behind them; None where these are in use already, or the room is too small."""
        with self._lock:
            if self._taken != taken or taken + len(values) > len(self._values):
                return None
            self._values[taken : taken + len(values)] = values
            self._taken += len(values)
            return self._values[: self._taken]


class EmbeddingBlocks:
    """Embeddings float32 [n, D] that never change, as a chain of blocks; `append` makes a longer chain.

    Both chains share memory: new rows go behind the last block where it has room that no other chain took, and into a
    new block otherwise. Any number of threads may read and append.
    """

    def __init__(self, blocks: Sequence[Embeddings], room: _Room | None = None) -> None:
        self._blocks = tuple(blocks)
        self._starts = np.cumsum([0, *map(len, self._blocks)])
        self._room = room

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without the room for more rows."""
        return EmbeddingBlocks, (self._blocks,)

    @classmethod
    def empty(cls, dimension: int) -> EmbeddingBlocks:
        """A chain without rows."""
        return cls([np.zeros((0, dimension), np.float32)])

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
        grown = None if self._room is None else self._room.extended(len(self._blocks[-1]), rows)
        if grown is not None:
            return EmbeddingBlocks([*self._blocks[:-1], grown], self._room)
        room = _Room(max(len(rows), LEAST_ROOM, len(self) // 4), self._blocks[0])
        grown = room.extended(0, rows)
        assert grown is not None
        return EmbeddingBlocks([*(block for block in self._blocks if len(block)), grown], room)

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

    def joined(self) -> Embeddings:
        """All rows as one array: a copy only where there are several blocks."""
        return self._blocks[0] if len(self._blocks) == 1 else np.concatenate(self._blocks)


class GrowingColumn:
    """A value of each row, an array [n] that never changes; `append` makes a longer column, which shares its memory.

    values: read it only. Any number of threads may read and append.
    """

    def __init__(self, values: npt.NDArray[Any], room: _Room | None = None) -> None:
        self.values, self._room = values, room

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without the room for more values."""
        return GrowingColumn, (self.values,)

    def __len__(self) -> int:
        return len(self.values)

    def append(self, values: npt.NDArray[Any]) -> GrowingColumn:
        """The column with more values, of the same dtype."""
        grown = None if self._room is None else self._room.extended(len(self), values)
        room = self._room
        if grown is None:
            room = _Room(len(self) + max(len(values), LEAST_ROOM, len(self) // 4), self.values)
            room.extended(0, self.values)
            grown = room.extended(len(self), values)
            assert grown is not None
        return GrowingColumn(grown, room)
