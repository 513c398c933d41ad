"""Image embeddings of queries or labels: ragged, since each has none, one or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from xmc.arrays import places_of
from xmc.errors import InputError

__all__ = ["Images", "RaggedImages"]


@dataclass(frozen=True)
class RaggedImages:
    """Embeddings of the images of n texts: those of text `i` are `values[offsets[i]:offsets[i + 1]]`, perhaps none.

    values: float16 [total, I]; may be a read-only memory map. offsets: int64 [n + 1], starting at 0.
    """

    values: npt.NDArray[np.float16]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def from_arrays(cls, images: Sequence[npt.ArrayLike | None], dimension: int | None = None) -> RaggedImages:
        """From an array [m, I] (or [I], for one image) for each text, None for a text without images.

        dimension: I, to be given where no text may have an image. Raises InputError for embeddings of different lengths,
        that are no numbers, or not finite.
        """
        if isinstance(images, str) or not isinstance(images, Sequence):
            raise InputError("images must be a list with an array, or None, for each text.")
        of_texts: list[npt.NDArray[np.float16] | None] = []
        for row, given in enumerate(images):
            embeddings = _numbers([] if given is None else given, row)
            if embeddings.size:
                dimension = embeddings.shape[-1] if dimension is None else dimension
                if embeddings.shape[1:] != (dimension,):
                    raise InputError(
                        f"The images of text {row} have embeddings of {embeddings.shape[-1]} numbers, others {dimension}."
                    )
            of_texts.append(embeddings if embeddings.size else None)
        present = [embeddings for embeddings in of_texts if embeddings is not None]
        counts = [0 if embeddings is None else len(embeddings) for embeddings in of_texts]
        values = np.concatenate(present) if present else np.zeros((0, dimension or 0), np.float16)
        return cls(values, np.cumsum([0, *counts], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def dimension(self) -> int:
        """Numbers I of an embedding."""
        return int(self.values.shape[1])

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Number of images of each text, int64 [n]."""
        return np.diff(self.offsets)

    def take(self, rows: npt.NDArray[np.integer]) -> RaggedImages:
        """The images of the texts `rows` (integers [m]), in that order, repeats allowed, as a copy in memory."""
        value_places, offsets = places_of(self.offsets, rows)
        return RaggedImages(self.values[value_places], offsets)


def _numbers(given: npt.ArrayLike, row: int) -> npt.NDArray[np.float16]:
    """The images of a text, [m, I]. row: the text's, for errors."""
    try:
        with np.errstate(over="ignore"):
            embeddings = np.atleast_2d(np.asarray(given, np.float16))
    except (TypeError, ValueError) as error:
        raise InputError(f"The images of text {row} are not arrays of numbers: {error}.") from error
    if embeddings.size and embeddings.ndim != 2:
        raise InputError(
            f"The images of text {row} must have the shape [images, numbers], but have {list(embeddings.shape)}."
        )
    if not np.isfinite(embeddings).all():
        raise InputError(f"An image embedding of text {row} is not finite in float16.")
    return embeddings


Images: TypeAlias = RaggedImages | Sequence[npt.ArrayLike | None]
"""Image embeddings of some texts: an array [m, I], or None, for each."""
