"""Arrow IPC files, which are memory-mapped when read (Parquet cannot be): tables, and embeddings as one column."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.errors import StoreError
from xmc.storage.directories import atomic_file
from xmc.storage.tensors import StoredTensor

__all__ = ["place_embeddings", "read_embeddings", "write_arrow_file", "write_embeddings"]

BROKEN = (OSError, KeyError, AttributeError, ValueError, pa.ArrowException)
"""What pyarrow raises for a file that holds something else."""


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
        return _blocks(pa.ipc.open_file(pa.memory_map(str(file))).read_all())
    except BROKEN as error:
        raise StoreError(f"{file} cannot be read as embeddings: {error}") from error


def place_embeddings(file: Path) -> list[StoredTensor]:
    """Where the blocks of `read_embeddings` lie in the file, to be read from there; errors as of it."""
    try:
        with pa.memory_map(str(file)) as mapped:
            beginning, size = mapped.read_buffer(1).address, mapped.size()
            mapped.seek(0)
            blocks = _blocks(pa.ipc.open_file(mapped).read_all())
            starts = [block.ctypes.data - beginning if len(block) else 0 for block in blocks]
            if not all(
                start >= 0 and start + block.nbytes <= size
                for start, block in zip(starts, blocks, strict=True)
                if len(block)
            ):
                raise ValueError("they are compressed")
    except BROKEN as error:
        raise StoreError(f"{file} cannot be read as embeddings: {error}") from error
    return [StoredTensor(file, block.dtype, block.shape, start) for start, block in zip(starts, blocks, strict=True)]


def _blocks(table: pa.Table) -> list[npt.NDArray[np.float32]]:
    column = table["embedding"]
    width = column.type.list_size
    return [_matrix(chunk, width) for chunk in column.chunks] or [np.zeros((0, width), np.float32)]


def _matrix(chunk: pa.FixedSizeListArray, width: int) -> npt.NDArray[np.float32]:
    """A view float32 [n, width]. Arrow's own `to_numpy` would load pandas, where that is installed."""
    values = chunk.flatten()
    if values.type != pa.float32() or values.null_count:
        raise ValueError(f"they are {values.type}, {values.null_count} of them null, and not float32")
    numbers = np.frombuffer(values.buffers()[1], np.float32, len(values), 4 * values.offset)
    return numbers.reshape(-1, width)
