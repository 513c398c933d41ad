"""Fingerprints: SHA-256 in hexadecimal of files, of tables' content, of JSON values, and of several of these together."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.progress import progress

__all__ = ["ContentHash", "fingerprint_of", "fingerprint_of_json", "sha256_file"]


LARGE = 1 << 28
"""Bytes of a file from which on it takes long enough to hash that progress is reported."""


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, read in blocks of 1 MiB."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        line = stack.enter_context(progress(f"hashing {path.name}", size, unit="bytes")) if size >= LARGE else None
        while block := file.read(1 << 20):
            digest.update(block)
            if line is not None:
                line.advance(len(block))
    return digest.hexdigest()


def fingerprint_of(digests: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """The fingerprint of several things together, given the digest of each by name.

    A mapping is taken in the order of its names, so that its own order does not matter; pairs in the order given.
    """
    pairs = sorted(digests.items()) if isinstance(digests, Mapping) else digests
    return hashlib.sha256("".join(f"{name}:{digest}\n" for name, digest in pairs).encode()).hexdigest()


def fingerprint_of_json(value: Any, sort_keys: bool = False) -> str:
    """The fingerprint of JSON values; with `sort_keys` the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=sort_keys).encode()).hexdigest()


class ContentHash:
    """SHA-256 over the content of a table, fed in batches; does not depend on batch sizes or compression."""

    def __init__(self) -> None:
        self._hashes: dict[str, Any] = {}

    def update(self, table: pa.Table | pa.RecordBatch) -> None:
        """Add rows."""
        for name in table.schema.names:
            column = table[name]
            chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
            for chunk in chunks:
                self._add(name, chunk)

    def hexdigest(self) -> str:
        """The hash of all rows so far."""
        whole = hashlib.sha256()
        for name in sorted(self._hashes):
            whole.update(name.encode() + self._hashes[name].digest())
        return whole.hexdigest()

    def _add(self, name: str, array: pa.Array) -> None:
        if pa.types.is_list(array.type):
            self._feed(name + "#", np.diff(array.offsets.to_numpy()).astype("<i4"))
            self._add(name + "[]", array.flatten())
        elif pa.types.is_string(array.type):
            encoded = [(text or "").encode() for text in array.to_pylist()]
            self._feed(name + "#", np.array([len(text) for text in encoded], "<i4"))
            self._feed(name, b"".join(encoded))
        else:
            values = array.to_numpy(zero_copy_only=False)
            self._feed(name, values.astype(values.dtype.newbyteorder("<")))

    def _feed(self, name: str, data: bytes | npt.NDArray[Any]) -> None:
        self._hashes.setdefault(name, hashlib.sha256()).update(data if isinstance(data, bytes) else data.tobytes())
