"""Ragged token sequences: values and offsets, never padded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmc.arrays import places_of
from xmc.data.images.ragged import RaggedImages

__all__ = ["RaggedTokens"]


@dataclass(frozen=True)
class RaggedTokens:
    """`n` token sequences of any lengths: sequence `i` is `values[offsets[i]:offsets[i + 1]]`.

    values: unsigned integers [total], in the narrowest type that holds them; may be a read-only memory map.
    offsets: int64 [n + 1], starting at 0.
    images: embeddings of the images that come with each text, for encoders that take them; None for none at all.
    """

    values: npt.NDArray[np.unsignedinteger]
    offsets: npt.NDArray[np.int64]
    images: RaggedImages | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        """Number of sequences and tokens."""
        images = ", with images" if self.images is not None else ""
        return (
            f"<{type(self).__name__}: {len(self):,} texts, {len(self.values):,} tokens ({self.values.dtype}){images}>"
        )

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of each sequence, int64 [n]."""
        return np.diff(self.offsets)

    def take(self, rows: npt.NDArray[np.integer]) -> RaggedTokens:
        """The sequences `rows` (integers [m]), in that order, repeats allowed, as a copy in memory."""
        value_places, offsets = places_of(self.offsets, rows)
        images = None if self.images is None else self.images.take(rows)
        return RaggedTokens(self.values[value_places], offsets, images)
