"""Parquet and Arrow: files that say the types of their columns, so that a column, not each cell, is what fits or does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xmc.data.files.addresses import InputFile
from xmc.data.files.cells import CELLS, CellProblem, one_label, split_cell
from xmc.data.files.table import TYPES, Kind, RecordFile, TextForm, WantedColumn, batch_schema
from xmc.errors import DataError, boundary
from xmc.storage.ipc_messages import IPC_FILE, require_whole_ipc
from xmc.storage.soundness import require_sound_batch, require_sound_group, require_sound_parquet

__all__ = ["ArrowFile", "ColumnarFile", "ParquetFile", "columns_of_table", "is_list", "is_text"]

BYTES = 32 << 20
"""About as much of a file is held unpacked at a time."""
ROWS = 8192
"""Rows of a batch at most."""
WHOLE = "Is the file complete?"
Problems = dict[int, tuple[str, str]]
"""By row of a batch, a short phrase why it cannot be used, and a sentence."""


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists, of any kind."""
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests) or "list_view" in str(kind)


def is_text(kind: pa.DataType) -> bool:
    """Whether values are strings, of any kind."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


class ColumnarFile(RecordFile):
    """See the module."""

    unit: ClassVar[Literal["line", "row"]] = "row"
    file_schema: pa.Schema

    def _fit(self) -> None:
        """Set the schema of the batches. Raises DataError for a column whose type does not fit what it is asked for."""
        types = []
        for column in self.wanted:
            if not self.has(column.name) or self.names.count(column.name) > 1:
                types.append(TYPES.get(column.kind, pa.null()))
                continue
            given = _plain(self.file_schema.field(column.name).type)
            if not _fits(given, column.kind):
                raise DataError(
                    f"{self.file.address}: the column {column.name!r} is of type {given}; {NEEDED[column.kind]} are needed. "
                    f"Convert it, or name another column."
                )
            types.append(TYPES.get(column.kind, given))
        self.schema = batch_schema(self.wanted, types)

    @property
    def names(self) -> tuple[str, ...]:
        """See RecordFile."""
        return tuple(self.file_schema.names)

    def _reading(self, row: int) -> AbstractContextManager[None]:
        """The boundary for what is read from a row on."""
        return boundary(DataError, f"{self.file.address} cannot be read past row {row:,}")

    def _batch(self, batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
        """A batch as it stands in the file, as a batch of this class."""
        problems: Problems = {}
        columns = []
        for column in self.wanted:
            kind = self.schema.field(column.field).type
            if column.name not in batch.schema.names:
                columns.append(pa.nulls(len(batch), kind))
            elif column.kind == "any":
                columns.append(_readable(_decoded(batch.column(column.name))).cast(kind))
            else:
                columns.append(READ[column.kind](_decoded(batch.column(column.name)), self.form.separator, problems))
        reasons = [problems[row][0] if row in problems else None for row in range(len(batch))] if problems else None
        messages = [problems[row][1] if row in problems else None for row in range(len(batch))] if problems else None
        none = pa.nulls(len(batch), pa.string())
        where = pa.array(np.arange(first + 1, first + 1 + len(batch)))
        return pa.RecordBatch.from_arrays(
            [
                where,
                none if reasons is None else pa.array(reasons, pa.string()),
                none if messages is None else pa.array(messages, pa.string()),
                none,
                *columns,
            ],
            schema=self.schema,
        )

    @property
    def _present(self) -> list[str]:
        return list(dict.fromkeys(column.name for column in self.wanted if column.name in self.names))


class ParquetFile(ColumnarFile):
    """A Parquet file, a row group at a time, so that what is before a damaged group can be read."""

    def __init__(self, file: InputFile, wanted: Sequence[WantedColumn], form: TextForm) -> None:
        """See RecordFile."""
        super().__init__(file, wanted, form)
        with boundary(DataError, f"{file.address} cannot be read", WHOLE):
            opened = file.open()
            self._size = opened.size()
            self._file = pq.ParquetFile(opened, buffer_size=1 << 20, page_checksum_verification=True)
            require_sound_parquet(self._file, opened)
            self.file_schema = self._file.schema_arrow
            self.names  # noqa: B018 (decoded here, where what is not UTF-8 is told)
        self._fit()

    def count(self, strict: bool = False) -> int:
        """See RecordFile."""
        return int(self._file.metadata.num_rows)

    def _from(self, row: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        metadata = self._file.metadata
        first = number = 0
        while number < metadata.num_row_groups and first + metadata.row_group(number).num_rows <= row:
            first += metadata.row_group(number).num_rows
            number += 1
        return first, self._groups(number, first)

    def _groups(self, start: int, row: int) -> Iterator[pa.RecordBatch]:
        for number in range(start, self._file.metadata.num_row_groups):
            group = self._file.metadata.row_group(number)
            rows = max(1, min(ROWS, BYTES * group.num_rows // max(1, group.total_byte_size)))
            end = row + group.num_rows
            with self._reading(row):
                require_sound_group(self._file, number, self._size)
                batches = self._file.iter_batches(rows, row_groups=[number], columns=self._present)
            while row < end:
                with self._reading(row):
                    given = next(batches, None)
                    if given is None:
                        raise ValueError(
                            f"row group {number} says {group.num_rows:,} rows, and {end - row:,} are missing"
                        )
                    require_sound_batch(given)
                    batch = self._batch(given, row)
                yield batch
                row += len(batch)


class ArrowFile(ColumnarFile):
    """An Arrow IPC file, also called Feather (version 2), or an Arrow IPC stream in a file."""

    def __init__(self, file: InputFile, wanted: Sequence[WantedColumn], form: TextForm) -> None:
        """See RecordFile."""
        super().__init__(file, wanted, form)
        with boundary(DataError, f"{file.address} cannot be read", WHOLE):
            opened = file.open()
            self._size = opened.size()
            is_file = opened.read(len(IPC_FILE)) == IPC_FILE
            opened.seek(0)
            self._file = pa.ipc.open_file(opened) if is_file else None
            self.file_schema = self._file.schema if self._file is not None else pa.ipc.open_stream(opened).schema
            self.names  # noqa: B018 (as of Parquet)
        self._fit()

    def count(self, strict: bool = False) -> int:
        """See RecordFile."""
        self._require_whole()
        rows = 0
        for given in self._given(0):
            rows += given.num_rows
        return rows

    def _from(self, row: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        return 0, self._batches()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        if self.file.is_local:  # elsewhere each message is a request, and jobs have counted before
            self._require_whole()
        row = 0
        for given in self._given(row):
            for start in range(0, given.num_rows, ROWS):
                with self._reading(row):
                    batch = self._batch(given[start : start + ROWS], row)
                yield batch
                row += len(batch)

    def _require_whole(self) -> None:
        """DataError for a file that does not hold all that its end says, or holds more."""
        with boundary(DataError, f"{self.file.address} cannot be read", WHOLE), self.file.open() as opened:
            require_whole_ipc(opened, None if self._file is None else self._file.num_record_batches)

    def _given(self, row: int) -> Iterator[pa.RecordBatch]:
        """The wanted columns of the file's batches, sound."""
        with self._reading(row):
            numbers = range(0 if self._file is None else self._file.num_record_batches)
            stream = pa.ipc.open_stream(self.file.open()) if self._file is None else map(self._file.get_batch, numbers)
        while True:
            with self._reading(row):
                given = next(stream, None)
                if given is None:
                    return
                batch = given.select(self._present)
                require_sound_batch(batch, self._size)
            row += batch.num_rows
            yield batch


class _TableFile(ColumnarFile):
    """A table in memory, read as a file would be."""

    def __init__(self, table: pa.Table, wanted: Sequence[WantedColumn], form: TextForm, name: str) -> None:
        super().__init__(InputFile(name, 0, 0), wanted, form)
        self._table, self.file_schema = table, table.schema
        self._fit()

    def count(self, strict: bool = False) -> int:
        return len(self._table)

    def _from(self, row: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        return 0, self._batches()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        row = 0
        for batch in self._table.select(self._present).to_batches(ROWS):
            yield self._batch(batch, row)
            row += len(batch)


def columns_of_table(table: pa.Table, wanted: Sequence[WantedColumn], form: TextForm, name: str) -> RecordFile:
    """A table in memory as a file of records; `name` is how errors call it."""
    file = _TableFile(table, wanted, form, name)
    file.require_columns()
    return file


def _plain(kind: pa.DataType) -> pa.DataType:
    """Without the dictionary of values."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if is_list(kind) and pa.types.is_dictionary(kind.value_type):
        return pa.list_(kind.value_type.value_type)
    return kind


def _decoded(column: pa.Array) -> pa.Array:
    plain = _plain(column.type)
    if plain == column.type:
        return column
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column.cast(plain)


def _readable(column: pa.Array) -> pa.Array:
    """Strings with a replacement character for bytes that are not UTF-8; any other column as it is."""
    if not is_text(column.type):
        return column
    texts = column.cast(pa.string())
    try:
        texts.validate(full=True)
        return texts
    except pa.ArrowException:
        return pa.array([None if raw is None else raw.decode(errors="replace") for raw in _raw(texts)], pa.string())


def _fits(kind: pa.DataType, wanted: Kind) -> bool:
    item = kind.value_type if is_list(kind) else kind
    words = is_text(item) or pa.types.is_null(item)
    whole, number = pa.types.is_integer(item), pa.types.is_integer(item) or pa.types.is_floating(item)
    return {
        "uid": (words or whole) and not is_list(kind),
        "text": words and not is_list(kind),
        "labels": words or whole,
        "relevance": words or number or pa.types.is_decimal(item),
        "flag": (words or whole or pa.types.is_boolean(item)) and not is_list(kind),
        "tokens": (whole and is_list(kind)) or pa.types.is_null(kind),
        "embedding": (number and is_list(kind)) or pa.types.is_null(kind),
        "any": True,
    }[wanted]


NEEDED: dict[Kind, str] = {
    "uid": "strings or whole numbers",
    "text": "strings",
    "labels": "lists of strings or whole numbers",
    "relevance": "lists of numbers",
    "flag": "true or false",
    "tokens": "lists of whole numbers",
    "embedding": "lists of numbers",
}


def _strings(what: str) -> Callable[[pa.Array, str | None, Problems], pa.Array]:
    def read(column: pa.Array, separator: str | None, problems: Problems) -> pa.Array:
        texts = column.cast(pa.string())
        try:
            texts.validate(full=True)
            return texts
        except pa.ArrowException:
            return pa.array([_decode(raw, row, what, problems) for row, raw in enumerate(_raw(texts))], pa.string())

    return read


def _raw(texts: pa.Array) -> list[bytes | None]:
    raw: list[bytes | None] = texts.view(pa.binary()).to_pylist()
    return raw


def _decode(raw: bytes | None, row: int, what: str, problems: Problems) -> str | None:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError as error:
        problems.setdefault(row, (f"{what} that is not UTF-8", f"the {what} is not UTF-8 ({error})."))
        return None


def _labels(column: pa.Array, separator: str | None, problems: Problems) -> pa.Array:
    """Lists of strings; a column of single values has one a row, cut where a separator is named."""
    if pa.types.is_null(column.type):
        return pa.array([[]] * len(column), TYPES["labels"])
    if is_list(column.type):
        items, offsets = _items(column)
        _nulls(items, offsets, problems, "null among the labels", "there is a null among the labels; leave it out.")
        given: Problems = {}
        strings = _strings("label")(items, separator, given)
        for place, problem in given.items():
            problems.setdefault(int(np.searchsorted(offsets, place, side="right")) - 1, problem)
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), strings)
    strings = _strings("label")(column, separator, problems)
    lists: list[list[str]] = []
    for row, value in enumerate(strings.to_pylist()):
        try:
            lists.append([] if not value else split_cell(value, separator) if separator else one_label(value))
        except CellProblem as problem:
            problems.setdefault(row, (problem.reason, problem.message))
            lists.append([])
    return pa.array(lists, TYPES["labels"])


def _numbers(kind: Kind) -> Callable[[pa.Array, str | None, Problems], pa.Array]:
    def read(column: pa.Array, separator: str | None, problems: Problems) -> pa.Array:
        if pa.types.is_null(column.type):
            return pa.nulls(len(column), TYPES[kind])
        try:
            if is_list(column.type):
                return column.cast(TYPES[kind], safe=kind != "embedding")
        except pa.ArrowException:  # a value that does not fit
            pass
        cells = []
        for row, value in enumerate(column.to_pylist()):
            try:
                cells.append(CELLS[kind](value, separator))
            except CellProblem as problem:
                problems.setdefault(row, (problem.reason, problem.message))
                cells.append(None)
        return pa.array(cells, TYPES[kind])

    return read


def _items(column: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """The items of lists, one after the other, and where each list begins and the last one ends; a null is an empty list."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    return pc.list_flatten(column), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _nulls(items: pa.Array, offsets: npt.NDArray[np.int64], problems: Problems, reason: str, message: str) -> None:
    for place in np.flatnonzero(items.is_null().to_numpy(zero_copy_only=False)) if items.null_count else ():
        problems.setdefault(int(np.searchsorted(offsets, place, side="right")) - 1, (reason, message))


READ: dict[Kind, Callable[[pa.Array, str | None, Problems], pa.Array]] = {
    "uid": _strings("uid"),
    "text": _strings("text"),
    "labels": _labels,
    "relevance": _numbers("relevance"),
    "flag": _numbers("flag"),
    "tokens": _numbers("tokens"),
    "embedding": _numbers("embedding"),
}
"""By kind of column, how a column of a typed file is read, given the separator of labels."""
