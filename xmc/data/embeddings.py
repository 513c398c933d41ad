"""Embeddings on disk: an Arrow IPC file with one fixed-size-list column, memory-mapped when read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.errors import StoreError

__all__ = ["read_embeddings", "write_embeddings"]


def write_embeddings(embeddings: npt.NDArray[np.float32], file: Path) -> None:
    """Write float32 [n, D]."""
    flat = pa.array(np.ascontiguousarray(embeddings, np.float32).ravel())
    table = pa.table({"embedding": pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_embeddings(file: Path) -> npt.NDArray[np.float32]:
    """A read-only view float32 [n, D] of a memory-mapped file; StoreError when it cannot be read."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        width = table.schema.field("embedding").type.list_size
        column = table["embedding"]
        if not len(column):
            return np.zeros((0, width), np.float32)
        values: npt.NDArray[np.float32] = column.combine_chunks().values.to_numpy(zero_copy_only=True)
        return values.reshape(-1, width)
    except (OSError, KeyError, AttributeError, pa.ArrowException) as error:
        raise StoreError(f"{file} cannot be read as embeddings: {error}") from error
