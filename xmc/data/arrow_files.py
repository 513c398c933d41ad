"""Arrow IPC files, which can be memory-mapped, where Parquet cannot."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from xmc.store import atomic_file

__all__ = ["write_arrow_file"]


def write_arrow_file(table: pa.Table, file: Path) -> None:
    """Write a table, whole or not at all; OSError where that cannot be done."""
    with (
        atomic_file(file) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
