"""Texts as the bytes that the static encoder hashes: Unicode NFKC, lower case, UTF-8, by Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["NormalisedTexts", "normalised"]

NormalisedTexts: TypeAlias = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""Bytes of n texts one after another, uint8, and where each begins and ends, int64 [n + 1]."""


def normalised(texts: Sequence[str] | pa.Array | pa.ChunkedArray, pool: pa.MemoryPool | None = None) -> NormalisedTexts:
    """The bytes of texts; a null is an empty text. Not a copy of what Arrow holds: read it only.

    pool: where Arrow takes memory from; by default its own.
    """
    array = texts if isinstance(texts, (pa.Array, pa.ChunkedArray)) else pa.array(texts, pa.large_string())
    array = pc.utf8_normalize(array.cast(pa.large_string()), "NFKC", memory_pool=pool)
    array = pc.utf8_lower(array, memory_pool=pool)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.null_count:
        array = pc.fill_null(array, "")
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    return data, offsets
