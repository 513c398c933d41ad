"""Arrow IPC files, which are memory-mapped when read (Parquet cannot be): tables, and embeddings as one column."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.errors import StoreError
from xmc.storage.directories import atomic_file

__all__ = ["read_embeddings", "write_arrow_file", "write_embeddings"]


def write_arrow_file(table: pa.Table, file: Path) -> None:
    """Write a table, whole or not at all; OSError where that cannot be done."""
    with (
        atomic_file(file) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def write_embeddings(blocks: Iterable[npt.NDArray[np.float32]], dimension: int, file: Path) -> None:
    """Write float32 [n, D], given as blocks of its rows; each becomes a record batch."""
    schema = pa.schema([("embedding", pa.list_(pa.float32(), dimension))])
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for block in blocks:
            values = pa.array(np.ascontiguousarray(block, np.float32).ravel())
            writer.write_batch(pa.record_batch([pa.FixedSizeListArray.from_arrays(values, dimension)], schema=schema))


def read_embeddings(file: Path) -> list[npt.NDArray[np.float32]]:
    """Read-only views float32 [n, D] of a memory-mapped file, as they were written; StoreError when it cannot be read."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        column = table["embedding"]
        width = column.type.list_size
        blocks = [chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, width) for chunk in column.chunks]
        return blocks or [np.zeros((0, width), np.float32)]
    except (OSError, KeyError, AttributeError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{file} cannot be read as embeddings: {error}") from error
