"""Text features without a vocabulary: words, word bigrams and character n-grams as 32-bit hashes.

A feature is a uint32: its low 3 bits are its kind, its high 29 bits a hash of its bytes. Texts are
normalised (Unicode NFKC, lower case) by Arrow; the byte loops run in numba, in parallel over texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xmc.data.tokens import RaggedTokens
from xmc.kernels.parallel import parallel_kernel

__all__ = ["KINDS", "KIND_BITS", "hash_features"]

KINDS = ("word", "bigram", "char3", "char4", "char5")
KIND_BITS = 3
_LONGEST_CHARACTER_GRAM = 5


def hash_features(texts: Sequence[str] | pa.Array | pa.ChunkedArray) -> RaggedTokens:
    """Features of each of n texts, in order of kind and place, repeats included.

    A word is a maximal run of ASCII letters and digits and non-ASCII bytes; every other character separates words.
    A bigram is two neighbouring words. A character n-gram (n = 3, 4, 5 code points) is cut from a word with a boundary
    mark at each end, and is never a whole marked word (the word feature is that).

    Returns RaggedTokens with uint32 values; a null or empty text has no features.
    """
    array = texts if isinstance(texts, (pa.Array, pa.ChunkedArray)) else pa.array(texts, pa.large_string())
    array = pc.utf8_lower(pc.utf8_normalize(array.cast(pa.large_string()), "NFKC"))
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.null_count:
        array = pc.fill_null(array, "")
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    counts = np.zeros(len(array) + 1, np.int64)
    _count(data, offsets, counts)
    starts = np.cumsum(counts)
    values = np.empty(starts[-1], np.uint32)
    _fill(data, offsets, starts, values)
    return RaggedTokens(values, starts)


@numba.njit(cache=True, inline="always")
def _mix(state: Any) -> Any:
    """Finaliser of MurmurHash3 (64 bit): every input bit changes every output bit with probability one half."""
    state ^= state >> np.uint64(33)
    state *= np.uint64(0xFF51AFD7ED558CCD)
    state ^= state >> np.uint64(33)
    state *= np.uint64(0xC4CEB9FE1A85EC53)
    return state ^ (state >> np.uint64(33))


@numba.njit(cache=True, inline="always")
def _feature(state: Any, kind: int) -> Any:
    mixed = _mix(state ^ (np.uint64(kind + 1) * np.uint64(0x9E3779B97F4A7C15)))
    return np.uint32(((mixed >> np.uint64(35)) << np.uint64(3)) | np.uint64(kind))


@numba.njit(cache=True, inline="always")
def _is_word(byte: int) -> bool:
    return byte >= 128 or 97 <= byte <= 122 or 48 <= byte <= 57 or 65 <= byte <= 90


@numba.njit(cache=True)
def _emit(data: npt.NDArray[np.uint8], start: int, stop: int, out: npt.NDArray[np.uint32]) -> int:
    """Write the features of bytes [start, stop) to `out` as far as it has room; return their number."""
    prime, basis = np.uint64(0x100000001B3), np.uint64(0xCBF29CE484222325)
    written = 0
    previous = np.uint64(0)
    starts = np.empty(_LONGEST_CHARACTER_GRAM + 1, np.int64)  # ring of the last code points' first bytes
    place = start
    while place < stop:
        if not _is_word(data[place]):
            place += 1
            continue
        end = place
        word = basis
        points = 0
        while end < stop and _is_word(data[end]):
            word = (word ^ np.uint64(data[end])) * prime
            if data[end] & 0xC0 != 0x80:
                points += 1
            end += 1
        if written < len(out):
            out[written] = _feature(word, 0)
        written += 1
        if previous != 0:
            if written < len(out):
                out[written] = _feature(_mix(previous) ^ word, 1)
            written += 1
        previous = word
        # Marks count as code points: position place - 1 is the opening mark, position end the closing one.
        seen = 0
        for byte in range(place - 1, end + 1):
            if place <= byte < end and data[byte] & 0xC0 == 0x80:
                continue
            starts[seen % (_LONGEST_CHARACTER_GRAM + 1)] = byte
            seen += 1
            last = byte
            while last + 1 < end and last >= place and data[last + 1] & 0xC0 == 0x80:
                last += 1
            for length in range(3, _LONGEST_CHARACTER_GRAM + 1):
                if seen < length or length >= points + 2:
                    continue
                first = starts[(seen - length) % (_LONGEST_CHARACTER_GRAM + 1)]
                gram = basis
                for position in range(first, last + 1):
                    inside = place <= position < end
                    gram = (gram ^ (np.uint64(data[position]) if inside else np.uint64(32))) * prime
                if written < len(out):
                    out[written] = _feature(gram, length - 1)
                written += 1
        place = end
    return written


@parallel_kernel()
def _count(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> None:
    for text in numba.prange(len(offsets) - 1):
        counts[text + 1] = _emit(data, offsets[text], offsets[text + 1], np.empty(0, np.uint32))


@parallel_kernel()
def _fill(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    values: npt.NDArray[np.uint32],
) -> None:
    for text in numba.prange(len(offsets) - 1):
        _emit(data, offsets[text], offsets[text + 1], values[starts[text] : starts[text + 1]])
