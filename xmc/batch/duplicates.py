"""The number of uids that repeat an earlier one, among any number of uids, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

__all__ = ["count_duplicates"]

HELD = 8 << 20
"""Number of hashes held at a time, of 8 bytes each; more uids are gone through several times."""


def count_duplicates(uids: Callable[[], Iterable[pa.Array]], count: int) -> int:
    """The number of uids that are equal to an earlier one, nulls left out.

    uids: gives all uids, some at a time, whenever it is called. count: number of uids.
    Uids are compared by 64-bit hashes: two different ones count as equal once in 10^19 pairs.
    """
    passes = -(-count // HELD)
    duplicates = 0
    for number in range(passes):
        held = [np.zeros(0, np.int64)]
        for some in uids():
            hashes = np.fromiter(map(hash, some.drop_null().to_pylist()), np.int64)
            held.append(hashes[hashes % passes == number])
        kept = np.concatenate(held)
        kept.sort()
        duplicates += int((kept[1:] == kept[:-1]).sum())
    return duplicates
