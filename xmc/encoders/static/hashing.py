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

from xmc.data.tokens import RaggedTokens
from xmc.encoders.static.formulas import BASIS, LONGEST_GRAM, MARK, mixed, salted, step, tagged
from xmc.encoders.static.normalising import normalised
from xmc.kernels.parallel import parallel_kernel

__all__ = ["hash_features"]


def hash_features(texts: Sequence[str] | pa.Array | pa.ChunkedArray) -> RaggedTokens:
    """Features of each of n texts, in order of kind and place, repeats included.

    A word is a maximal run of ASCII letters and digits and non-ASCII bytes; every other character separates words.
    A bigram is two neighbouring words. A character n-gram (n = 3, 4, 5 code points) is cut from a word with a boundary
    mark at each end, and is never a whole marked word (the word feature is that).

    Returns RaggedTokens with uint32 values; a null or empty text has no features.
    """
    data, offsets = normalised(texts)
    counts = np.zeros(len(offsets), np.int64)
    _count(data, offsets, counts)
    starts = np.cumsum(counts)
    values = np.empty(starts[-1], np.uint32)
    _fill(data, offsets, starts, values)
    return RaggedTokens(values, starts)


_mixed: Any = numba.njit(cache=True, inline="always")(mixed)
_salted: Any = numba.njit(cache=True, inline="always")(salted)
_tagged: Any = numba.njit(cache=True, inline="always")(tagged)
_step: Any = numba.njit(cache=True, inline="always")(step)


@numba.njit(cache=True, inline="always")
def _feature(state: Any, kind: int) -> Any:
    place = np.uint64(kind)
    return np.uint32(_tagged(_mixed(_salted(state, place)), place))


@numba.njit(cache=True, inline="always")
def _is_word(byte: int) -> bool:
    return byte >= 128 or 97 <= byte <= 122 or 48 <= byte <= 57 or 65 <= byte <= 90


@numba.njit(cache=True)
def _emit(data: npt.NDArray[np.uint8], start: int, stop: int, out: npt.NDArray[np.uint32]) -> int:
    """Write the features of bytes [start, stop) to `out` as far as it has room; return their number."""
    written = 0
    previous = np.uint64(0)
    starts = np.empty(LONGEST_GRAM + 1, np.int64)  # ring of the last code points' first bytes
    place = start
    while place < stop:
        if not _is_word(data[place]):
            place += 1
            continue
        end = place
        word = BASIS
        points = 0
        while end < stop and _is_word(data[end]):
            word = _step(word, np.uint64(data[end]))
            if data[end] & 0xC0 != 0x80:
                points += 1
            end += 1
        if written < len(out):
            out[written] = _feature(word, 0)
        written += 1
        if previous != 0:
            if written < len(out):
                out[written] = _feature(_mixed(previous) ^ word, 1)
            written += 1
        previous = word
        # Marks count as code points: position place - 1 is the opening mark, position end the closing one.
        seen = 0
        for byte in range(place - 1, end + 1):
            if place <= byte < end and data[byte] & 0xC0 == 0x80:
                continue
            starts[seen % (LONGEST_GRAM + 1)] = byte
            seen += 1
            last = byte
            while last + 1 < end and last >= place and data[last + 1] & 0xC0 == 0x80:
                last += 1
            for length in range(3, LONGEST_GRAM + 1):
                if seen < length or length >= points + 2:
                    continue
                first = starts[(seen - length) % (LONGEST_GRAM + 1)]
                gram = BASIS
                for position in range(first, last + 1):
                    inside = place <= position < end
                    gram = _step(gram, np.uint64(data[position]) if inside else MARK)
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
