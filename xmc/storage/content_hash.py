"""The fingerprint of a table's content, whatever the batches and files that it comes in."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["ContentHash"]


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
