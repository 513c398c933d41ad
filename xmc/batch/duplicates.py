"""How many uids stand a second time among any number of them, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

__all__ = ["count_duplicates"]

HELD = 8 << 20
"""Hashes held at a time, of 8 bytes each; with more uids than so, they are gone through several times."""


def count_duplicates(uids: Callable[[], Iterable[pa.Array]], count: int) -> int:
    """Uids that an earlier one is equal to, nulls apart. uids: gives all of them, some at a time, whenever it is called.

    By 64-bit hashes: two different uids are taken for one once in 10^19 pairs.
    """
    passes = -(-count // HELD)
    found = 0
    for number in range(passes):
        held = []
        for part in uids():
            hashes = np.fromiter(map(hash, part.drop_null().to_pylist()), np.int64)
            held.append(hashes[hashes % passes == number])
        kept = np.concatenate(held)
        kept.sort()
        found += int((kept[1:] == kept[:-1]).sum())
    return found
