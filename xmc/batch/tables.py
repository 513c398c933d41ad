"""An input file as a table: its number of rows, its columns, and any range of rows in order, in bounded memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from xmc.batch.input_files import InputFile
from xmc.errors import DataError

__all__ = ["BYTES", "Table", "open_table"]

BYTES = 32 << 20
"""About as much of a file is held unpacked at a time; a line of CSV or JSON may be no longer."""
BROKEN = (OSError, EOFError, ValueError, pa.ArrowException)


class Table(ABC):
    """The rows of one file, of some columns. Ranges that follow one another are read in one go."""

    def __init__(self, file: InputFile, columns: tuple[str, ...]) -> None:
        self.file, self.columns = file, columns
        self._position = 0
        self._stream: Iterator[pa.RecordBatch] | None = None
        self._rest: pa.RecordBatch | None = None

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """Names and types of all columns."""

    @abstractmethod
    def count(self) -> tuple[int, int]:
        """Rows, and lines that are no rows."""

    @abstractmethod
    def _from(self, row: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        """The first row of a stream, at or before `row`, and the stream of the rows from there on."""

    def batches(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """The rows [start, stop) in order. Raises DataError, with the file and the row, where they cannot be read."""
        try:
            if self._stream is None or self._position != start:
                self._rest = None
                self._position, self._stream = self._from(start)
            while self._position < stop:
                batch = self._rest if self._rest is not None else next(self._stream, None)
                self._rest = None
                if batch is None:
                    raise DataError(f"{self.file.address} ends at row {self._position:,}: it was changed meanwhile.")
                skipped = min(max(0, start - self._position), len(batch))
                taken = min(len(batch), stop - self._position)
                self._rest = batch[taken:] if taken < len(batch) else None
                self._position += taken
                if skipped < taken:
                    yield batch[skipped:taken]
        except BROKEN as error:
            raise DataError(f"{self.file.address} cannot be read past row {self._position:,}: {error}") from error


class _Parquet(Table):
    def __init__(self, file: InputFile, columns: tuple[str, ...]) -> None:
        super().__init__(file, columns)
        self._file = pq.ParquetFile(file.open(), buffer_size=1 << 20)

    @property
    def schema(self) -> pa.Schema:
        return self._file.schema_arrow

    def count(self) -> tuple[int, int]:
        return self._file.metadata.num_rows, 0

    def _from(self, row: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        metadata = self._file.metadata
        first = number = 0
        while number < metadata.num_row_groups and first + metadata.row_group(number).num_rows <= row:
            first += metadata.row_group(number).num_rows
            number += 1
        return first, self._groups(number)

    def _groups(self, first: int) -> Iterator[pa.RecordBatch]:
        """Row groups from `first` on, each by itself, so that what is before a damaged group can be read."""
        for number in range(first, self._file.metadata.num_row_groups):
            group = self._file.metadata.row_group(number)
            rows = max(1, min(8192, BYTES * group.num_rows // max(1, group.total_byte_size)))
            yield from self._file.iter_batches(rows, row_groups=[number], columns=list(self.columns))


class _Arrow(Table):
    def __init__(self, file: InputFile, columns: tuple[str, ...]) -> None:
        super().__init__(file, columns)
        self._file = pa.ipc.open_file(file.open())

    @property
    def schema(self) -> pa.Schema:
        return self._file.schema

    def count(self) -> tuple[int, int]:
        return sum(self._file.get_batch(number).num_rows for number in range(self._file.num_record_batches)), 0

    def _from(self, row: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        return 0, (
            self._file.get_batch(number).select(list(self.columns)) for number in range(self._file.num_record_batches)
        )


class _Text(Table):
    """CSV or JSON: read from the beginning, as nothing says where a row starts."""

    def count(self) -> tuple[int, int]:
        return sum(len(batch) for batch in self._from(0)[1]), 0


class _CSV(_Text):
    def __init__(self, file: InputFile, columns: tuple[str, ...], strict: bool) -> None:
        super().__init__(file, columns)
        self._strict, self._bad = strict, 0
        with self._reader(pa_csv.ConvertOptions()) as reader:
            names = reader.schema.names
        if twice := [name for name in names if names.count(name) > 1]:
            raise DataError(f"{file.address} has the column {twice[0]!r} more than once; rename one of them.")
        self._schema = pa.schema([(name, pa.string()) for name in names])  # fields as they are written: 007 stays 007

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def count(self) -> tuple[int, int]:
        self._bad = 0
        return super().count()[0], self._bad

    def _from(self, row: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        present = [name for name in self.columns if name in self._schema.names]
        types = dict.fromkeys(present, pa.string())
        options = pa_csv.ConvertOptions(include_columns=present, column_types=types, strings_can_be_null=False)
        return 0, iter(self._reader(options))

    def _reader(self, convert: pa_csv.ConvertOptions) -> pa_csv.CSVStreamingReader:
        handler = None if self._strict else self._skip
        parse = pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=handler)
        read = pa_csv.ReadOptions(block_size=BYTES)
        return pa_csv.open_csv(self.file.stream(), read_options=read, parse_options=parse, convert_options=convert)

    def _skip(self, row: pa_csv.InvalidRow) -> str:
        self._bad += 1
        return "skip"


class _JSON(_Text):
    def __init__(self, file: InputFile, columns: tuple[str, ...]) -> None:
        super().__init__(file, columns)
        with self._reader(pa_json.ParseOptions()) as reader:
            self._schema: pa.Schema = reader.schema

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def _from(self, row: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        fields = [self._schema.field(name) for name in self.columns if name in self._schema.names]
        # A column whose first rows are all null may still hold texts.
        fields = [field if not pa.types.is_null(field.type) else pa.field(field.name, pa.string()) for field in fields]
        parse = pa_json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore")
        return 0, iter(self._reader(parse))

    def _reader(self, parse: pa_json.ParseOptions) -> pa_json.JSONStreamingReader:
        read = pa_json.ReadOptions(block_size=BYTES)
        return pa_json.open_json(self.file.stream(), read_options=read, parse_options=parse)


def open_table(file: InputFile, columns: tuple[str, ...], strict: bool) -> Table:
    """A file by the ending of its name. strict: a CSV line with too many or too few fields is an error, else it is skipped.

    Raises DataError for a file that cannot be read, a column that it lacks, or one that it has twice.
    """
    try:
        if file.ending == ".parquet":
            table: Table = _Parquet(file, columns)
        elif file.ending == ".arrow":
            table = _Arrow(file, columns)
        elif file.ending.startswith(".csv"):
            table = _CSV(file, columns, strict)
        else:
            table = _JSON(file, columns)
        names = table.schema.names
    except BROKEN as error:
        raise DataError(f"{file.address} cannot be read: {error}. Is the file complete?") from error
    for name in columns:
        if name not in names:
            raise DataError(f"{file.address} has no column {name!r}, only {', '.join(names)}; name the right one.")
    return table
