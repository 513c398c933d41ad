"""Parquet files that are written: a writer that fails says so once, and not again when it is collected."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["give_up", "parquet_writer", "write_parquet"]


@contextlib.contextmanager
def parquet_writer(file: str | Path, schema: pa.Schema, **options: Any) -> Iterator[pq.ParquetWriter]:
    """A pq.ParquetWriter that is closed at the end of the block; OSError where the file cannot be written.

    options: of pq.ParquetWriter.
    """
    writer = pq.ParquetWriter(file, schema, **options)
    try:
        yield writer
        writer.close()
    finally:
        give_up(writer)


def write_parquet(table: pa.Table, file: str | Path, **options: Any) -> None:
    """Write a table to a Parquet file; OSError where that cannot be done. options: of pq.ParquetWriter."""
    with parquet_writer(file, table.schema, **options) as writer:
        writer.write_table(table)


def give_up(writer: pq.ParquetWriter) -> None:
    """Close a writer that could not write, or was closed already.

    Where that fails, it counts as closed: otherwise pyarrow tries again when the writer is collected, and Python prints the
    error as a traceback.
    """
    for _ in ("what is left is written", "the file alone is closed"):
        with contextlib.suppress(OSError, pa.ArrowException):
            writer.close()
        writer.is_open = False
