"""Files of records by the endings of their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xmc.data.files.addresses import ENDINGS_IN_WORDS, InputFile, ending_of, local_file
from xmc.data.files.columnar import ArrowFile, ParquetFile
from xmc.data.files.delimited import DelimitedFile
from xmc.data.files.json_lines import JsonLinesFile
from xmc.data.files.table import RecordFile, TextForm, WantedColumn
from xmc.errors import DataError
from xmc.registry import Registry

__all__ = ["FILE_FORMATS", "open_file"]

FILE_FORMATS: Registry[type[RecordFile]] = Registry(
    "file format",
    {
        **dict.fromkeys((".parquet", ".pq"), ParquetFile),
        **dict.fromkeys((".arrow", ".feather"), ArrowFile),
        **dict.fromkeys((".csv", ".tsv", ".tab"), DelimitedFile),
        **dict.fromkeys((".jsonl", ".ndjson", ".json"), JsonLinesFile),
    },
)
"""The readers of files of records by the endings of names, without that of packing."""


def open_file(file: InputFile | Path, wanted: Sequence[WantedColumn], form: TextForm | None = None) -> RecordFile:
    """A file by the ending of its name.

    Raises DataError for a file that cannot be read, a column that it lacks or has twice, or one of another type.
    """
    address = file.address if isinstance(file, InputFile) else str(file)
    if not ending_of(address):
        raise DataError(f"{address} ends with none of {ENDINGS_IN_WORDS}, so its format is not known.")
    if isinstance(file, Path):
        file = local_file(file)
    records = FILE_FORMATS[file.ending](file, wanted, form or TextForm())
    records.require_columns()
    return records
