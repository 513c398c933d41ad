"""Arrow IPC files, which are memory-mapped when read (Parquet cannot be): tables, and embeddings as one column.

Files are read by `read_columns` alone, wherever Arrow or Parquet stands beside something of ours, so that none is trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from xmc.errors import StoreError, XMCError, boundary
from xmc.storage.files import atomic_file
from xmc.storage.ipc_messages import require_whole_ipc
from xmc.storage.small_files import require_regular
from xmc.storage.soundness import require_sound_group, require_sound_parquet
from xmc.storage.tensors import StoredTensor

__all__ = [
    "column_names",
    "place_embeddings",
    "read_batches",
    "read_columns",
    "read_embeddings",
    "write_arrow_file",
    "write_embeddings",
]


def read_columns(
    file: Path,
    columns: Sequence[str] | None = None,
    *,
    kind: type[XMCError] = StoreError,
    what: str = "",
    remedy: str = "",
    mapped: bool = True,
    threads: bool = True,
) -> pa.Table:
    """The table of a Parquet file, by the ending .parquet, or of an Arrow IPC file, with every value validated.

    columns: those that are read, in this order; None for all. kind: class of the error for a file that is missing, damaged,
    or lacks a column. what: a sentence without its end, such as "FILE cannot be read as METRICS", which the cause follows; by
    default "FILE cannot be read". remedy: a further sentence. mapped: memory-map the file; otherwise it is read. threads: read
    the columns of a Parquet file at once.
    """
    with boundary(kind, what or f"{file} cannot be read", remedy):
        if file.suffix == ".parquet":
            with _open_parquet(file, mapped) as parquet:
                table = parquet.read(None if columns is None else list(columns), use_threads=threads)
                if len(table) != parquet.metadata.num_rows:
                    raise ValueError(f"it says {parquet.metadata.num_rows:,} rows, but has {len(table):,}")
        else:
            opened = (pa.memory_map if mapped else pa.OSFile)(str(file), "r")
            reader = pa.ipc.open_file(opened)
            require_whole_ipc(opened, reader.num_record_batches)
            table = reader.read_all()
        table.validate(full=True)
        return table if columns is None else table.select(list(columns))


def read_batches(
    file: Path, rows: int, columns: Sequence[str] | None = None, *, kind: type[XMCError] = StoreError, what: str = ""
) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file in batches of at most `rows`, validated; parameters and errors are those of `read_columns`."""
    what = what or f"{file} cannot be read"
    with boundary(kind, what):
        parquet = _open_parquet(file, mapped=False)
    with parquet:
        with boundary(kind, what):
            batches = parquet.iter_batches(rows, columns=None if columns is None else list(columns))
        count = 0
        while True:
            with boundary(kind, what):
                batch = next(batches, None)
                if batch is None:
                    if count != parquet.metadata.num_rows:
                        raise ValueError(f"it says {parquet.metadata.num_rows:,} rows, but has {count:,}")
                    return
                batch.validate(full=True)
                if columns is not None:
                    batch = batch.select(list(columns))
            count += len(batch)
            yield batch


def column_names(file: Path, *, kind: type[XMCError] = StoreError, what: str = "") -> list[str]:
    """The names of the columns of a Parquet file; errors as of `read_columns`."""
    with boundary(kind, what or f"{file} cannot be read"):
        names: list[str] = pq.read_schema(file).names
        return names


def _open_parquet(file: Path, mapped: bool) -> pq.ParquetFile:
    require_regular(file)
    opened = (pa.memory_map if mapped else pa.OSFile)(str(file), "r")
    parquet = pq.ParquetFile(opened, page_checksum_verification=True)
    require_sound_parquet(parquet, opened)
    for number in range(parquet.num_row_groups):
        require_sound_group(parquet, number, opened.size())
    return parquet


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
    what = f"{file} cannot be read as embeddings"
    with boundary(StoreError, what):
        return _blocks(read_columns(file, what=what))


def place_embeddings(file: Path) -> list[StoredTensor]:
    """Where the blocks of `read_embeddings` lie in the file, to be read from there; errors as of it."""
    with boundary(StoreError, f"{file} cannot be read as embeddings"):
        with pa.memory_map(str(file)) as mapped:
            beginning, size = mapped.read_buffer(1).address, mapped.size()
            mapped.seek(0)
            table = pa.ipc.open_file(mapped).read_all()
            table.validate(full=True)
            blocks = _blocks(table)
            starts = [block.ctypes.data - beginning if len(block) else 0 for block in blocks]
            if not all(
                start >= 0 and start + block.nbytes <= size
                for start, block in zip(starts, blocks, strict=True)
                if len(block)
            ):
                raise ValueError("they are compressed")
        return [
            StoredTensor(file, block.dtype, block.shape, start) for start, block in zip(starts, blocks, strict=True)
        ]


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
