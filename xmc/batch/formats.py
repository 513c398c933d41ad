"""The formats that results are written in: Parquet, CSV and JSON lines, so that our own reader reads the same values back."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from xmc.batch.spreadsheets import escaped, escaped_name
from xmc.data.files.columnar import is_list, is_text
from xmc.errors import DataError
from xmc.registry import Registry
from xmc.storage.parquet import give_up

__all__ = ["METADATA", "OUTPUT_FORMATS", "PartWriter"]

METADATA = b"xmc"
"""The key of what made a part, in the metadata of a Parquet file."""


class PartWriter(ABC):
    """Writes record batches of one schema into a stream. A format is a subclass, registered in OUTPUT_FORMATS by its ending."""

    describes: ClassVar[bool] = False
    """Whether a file of this format holds what made it; where not, that is kept beside it."""
    nulls: ClassVar[bool] = True
    """Whether a null is told from an empty string."""
    lists: ClassVar[bool] = True
    """Whether a cell holds a list as such; where not, its items are cut by a separator."""

    @abstractmethod
    def __init__(self, stream: pa.NativeFile, schema: pa.Schema, separator: str, escape: bool = False) -> None:
        """separator: between the items of a list, in a format that has no lists. escape: whether texts that a spreadsheet would
        take for formulas are made to be texts, in a format that spreadsheets open."""

    @classmethod
    @abstractmethod
    def takes(cls, kind: pa.DataType) -> bool:
        """Whether values of this type can be written, and read again."""

    @abstractmethod
    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows. Raises OSError where the disk is full."""

    @abstractmethod
    def close(self, described: dict[str, Any]) -> None:
        """Write what is left. described: what made the file, JSON values, for a format that `describes` it."""


class ParquetWriter(PartWriter):
    """Every type, zstd."""

    describes: ClassVar[bool] = True

    def __init__(self, stream: pa.NativeFile, schema: pa.Schema, separator: str, escape: bool = False) -> None:
        """See PartWriter."""
        self._writer = pq.ParquetWriter(stream, schema, compression="zstd", write_page_checksum=True)

    @classmethod
    def takes(cls, kind: pa.DataType) -> bool:
        """See PartWriter."""
        return True

    def write(self, batch: pa.RecordBatch) -> None:
        """See PartWriter."""
        self._writer.write_batch(batch)

    def close(self, described: dict[str, Any]) -> None:
        """See PartWriter."""
        try:
            if described:  # it is not an unfinished file that is given up
                self._writer.add_key_value_metadata({METADATA: json.dumps(described).encode()})
            self._writer.close()
        finally:
            give_up(self._writer)


class CsvWriter(PartWriter):
    """Strings in quotes, commas between columns. A list of strings or numbers is one cell, its items cut by the separator; no
    item may hold it, see xmc.data.files.cells.first_unsplittable. Null, and the empty list, are the empty cell. What would be a
    formula has an apostrophe before it where that is asked for, see xmc.batch.spreadsheets; numbers stay numbers."""

    nulls: ClassVar[bool] = False
    lists: ClassVar[bool] = False

    def __init__(self, stream: pa.NativeFile, schema: pa.Schema, separator: str, escape: bool = False) -> None:
        """See PartWriter."""
        named = escaped_name if escape else str
        fields = [(named(field.name), pa.string() if is_list(field.type) else field.type) for field in schema]
        self._schema, self._separator, self._escape = pa.schema(fields), separator, escape
        self._writer = pa_csv.CSVWriter(stream, self._schema)

    @classmethod
    def takes(cls, kind: pa.DataType) -> bool:
        """See PartWriter: no lists in lists."""
        return _is_plain(kind.value_type if is_list(kind) else kind)

    def write(self, batch: pa.RecordBatch) -> None:
        """See PartWriter."""
        columns = [self._cells(column) for column in batch.columns]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))

    def close(self, described: dict[str, Any]) -> None:
        """See PartWriter."""
        self._writer.close()

    def _cells(self, column: pa.Array) -> pa.Array:
        are_texts = is_text(column.type.value_type if is_list(column.type) else column.type)
        if is_list(column.type):
            column = pc.binary_join(column.cast(pa.list_(pa.string())), self._separator)
        return escaped(column).cast(column.type) if self._escape and are_texts else column


class JsonLinesWriter(PartWriter):
    """An object a line. Numbers of 32 bits are written in their shortest form; dates, times and decimals as strings; a number
    that is not finite is null."""

    def __init__(self, stream: pa.NativeFile, schema: pa.Schema, separator: str, escape: bool = False) -> None:
        """See PartWriter."""
        self._stream, self._names = stream, schema.names

    @classmethod
    def takes(cls, kind: pa.DataType) -> bool:
        """See PartWriter: everything but bytes, and structures that hold other than strings, numbers and lists of them."""
        return cls.takes(kind.value_type) if is_list(kind) else _is_plain(kind)

    def write(self, batch: pa.RecordBatch) -> None:
        """See PartWriter."""
        rows = zip(*map(_values, batch.columns), strict=True)
        for row in rows:
            self._stream.write(orjson.dumps(dict(zip(self._names, row, strict=True)), option=_JSON))

    def close(self, described: dict[str, Any]) -> None:
        """See PartWriter: nothing is left."""


_JSON = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY


def _is_plain(kind: pa.DataType) -> bool:
    """Whether values are strings, numbers, dates, times or null."""
    tests: Sequence[Callable[[pa.DataType], bool]] = (
        is_text,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
        pa.types.is_decimal,
        pa.types.is_temporal,
        pa.types.is_null,
    )
    return any(test(kind) for test in tests)


def _values(column: pa.Array) -> Iterator[Any] | list[Any]:
    """The values of a column, as orjson writes them."""
    kind = column.type
    if is_list(kind) and pa.types.is_float32(kind.value_type):
        return _slices(column)
    if pa.types.is_float32(kind):
        return [None if value is None else np.float32(value) for value in column.to_pylist()]
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.string())
    elif is_list(kind) and (pa.types.is_temporal(kind.value_type) or pa.types.is_decimal(kind.value_type)):
        column = column.cast(pa.list_(pa.string()))
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError as error:
        raise DataError(f"A column holds bytes that are not UTF-8 ({error}); keep others, or write Parquet.") from error
    return values


def _slices(column: pa.Array) -> Iterator[Any]:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    numbers = pc.list_flatten(column).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    for end, length, valid in zip(ends.tolist(), lengths.tolist(), column.is_valid().to_pylist(), strict=True):
        yield np.ascontiguousarray(numbers[end - length : end]) if valid else None


OUTPUT_FORMATS: Registry[type[PartWriter]] = Registry(
    "output format", {"parquet": ParquetWriter, "csv": CsvWriter, "jsonl": JsonLinesWriter}
)
"""The writers by the names of their formats, which files end with."""
