"""What a file of records is: rows of named columns, read in order in bounded memory, with what is wrong beside each row."""

from __future__ import annotations

import codecs
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from xmc.data.files.addresses import InputFile
from xmc.data.files.undecodable import undecodable
from xmc.errors import ConfigError, DataError
from xmc.registry import nearest

__all__ = [
    "LINE",
    "LONGEST_LINE",
    "MESSAGE",
    "REASON",
    "REMARK",
    "TYPES",
    "Kind",
    "RecordFile",
    "TextForm",
    "WantedColumn",
    "batch_schema",
]

Kind = Literal["uid", "text", "labels", "relevance", "flag", "tokens", "embedding", "any"]
"""What the cells of a column mean; see xmc.data.files.cells."""
TYPES: dict[Kind, pa.DataType] = {
    "uid": pa.string(),
    "text": pa.string(),
    "labels": pa.list_(pa.string()),
    "relevance": pa.list_(pa.float64()),
    "flag": pa.bool_(),
    "tokens": pa.list_(pa.int64()),
    "embedding": pa.list_(pa.float32()),
}
"""The Arrow type that a column of each kind is read as; "any" keeps that of a typed file, and is strings of any other."""
LINE, REASON, MESSAGE, REMARK = "#line", "#reason", "#message", "#remark"
"""Columns of every batch beside those that were asked for: where the row begins in the file, from 1 (int64: a line of a text
file, a row of any other); where the row cannot be used, a short phrase why and a sentence, else null; and a short phrase on
what is noticed of a row that can be used, else null."""
LONGEST_LINE = 16 << 20
"""Characters of a line of a text file, unless more are allowed."""
LINES_OF_A_RECORD = 4
"""Lines of the greatest length that a record of several lines may fill."""


@dataclass(frozen=True)
class WantedColumn:
    """A column that is asked of a file: its name there, and what its cells mean.

    required: a file without it is refused; otherwise the column is null. key: its name in the batches. option: of commands,
    which names the column; "" where none does.
    """

    name: str
    kind: Kind
    required: bool = True
    key: str = ""
    option: str = ""

    @property
    def field(self) -> str:
        """Its name in the batches."""
        return self.key or self.name


@dataclass(frozen=True)
class TextForm:
    """How text files are written.

    encoding: a name that Python knows; None for UTF-8, or UTF-16 where the file begins with its byte-order mark. delimiter:
    of columns in a CSV file; None for the one that its name and first line show. separator: what cuts the string in a cell of
    labels; None for "," in files that have no lists of their own, and for no cutting in those that have. max_line:
    characters of a line at most, which bounds the memory that a file can take; None for LONGEST_LINE.

    Raises ConfigError for an encoding that is not known, a delimiter of more than one character, and a line of none.
    """

    encoding: str | None = None
    delimiter: str | None = None
    separator: str | None = None
    max_line: int | None = None

    def __post_init__(self) -> None:
        if self.encoding is not None:
            try:
                "".encode(codecs.lookup(self.encoding).name)  # some that are known are of bytes, such as hex
            except (LookupError, ValueError) as error:
                raise ConfigError(
                    f"The encoding {self.encoding!r} is not known; utf-8, latin-1, cp1252 and utf-16 are."
                ) from error
        if self.max_line is not None and self.max_line < 1:
            raise ConfigError(f"A line has at least one character, but max_line is {self.max_line}.")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '\r\n"'):
            raise ConfigError(f"A delimiter is one character, such as ; or a tab, but is {self.delimiter!r}.")
        if self.separator == "":
            raise ConfigError("A separator of labels has at least one character.")

    @property
    def longest_line(self) -> int:
        """Characters of a line at most."""
        return self.max_line or LONGEST_LINE

    @property
    def longest_record(self) -> int:
        """Characters of a record, or of a text, of several lines at most."""
        return LINES_OF_A_RECORD * self.longest_line


def batch_schema(wanted: Sequence[WantedColumn], types: Sequence[pa.DataType]) -> pa.Schema:
    """The schema of the batches of a file: where, what is wrong or noticed, and the columns that were asked for."""
    bookkeeping = [(LINE, pa.int64()), (REASON, pa.string()), (MESSAGE, pa.string()), (REMARK, pa.string())]
    return pa.schema([*bookkeeping, *((column.field, kind) for column, kind in zip(wanted, types, strict=True))])


class RecordFile(ABC):
    """The rows of one file, of some columns. Ranges that follow one another are read in one go."""

    unit: ClassVar[Literal["line", "row"]]
    """What the column LINE counts."""
    schema: pa.Schema
    """Of the batches."""

    def __init__(self, file: InputFile, wanted: Sequence[WantedColumn], form: TextForm) -> None:
        """Open a file. Raises DataError where it cannot be read, or is written in a way that the error tells how to name."""
        self.file, self.wanted, self.form = file, tuple(wanted), form
        self._position = 0
        self._stream: Iterator[pa.RecordBatch] | None = None
        self._rest: pa.RecordBatch | None = None

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order; of JSON lines those that the first rows have."""

    @abstractmethod
    def count(self, strict: bool = False) -> int:
        """Number of rows, with those that cannot be used. strict: raise DataError for a line that is no record."""

    @abstractmethod
    def _from(self, row: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        """The first row of a stream, at or before `row`, and the stream of the rows from there on."""

    def has(self, name: str) -> bool:
        """Whether there is a column of this name."""
        return name in self.names

    def every_name(self) -> tuple[str, ...]:
        """Names of the columns, in order, with those that a row far below is the first to have.

        Raises DataError for one that is no text, which a result could not have.
        """
        names = self._every_name()
        for name in names:
            if (wrong := undecodable(name)) is not None:
                raise DataError(f"{self.file.address}: the name {name!r} of a column {wrong}.")
        return names

    def _every_name(self) -> tuple[str, ...]:
        return self.names

    def require_columns(self) -> None:
        """Raise DataError for a column that must be there and is not, or that is there twice."""
        missing = [column for column in self.wanted if column.required and not self.has(column.name)]
        if missing:
            raise self._without(missing)
        for column in self.wanted:
            if self.names.count(column.name) > 1:
                raise DataError(
                    f"{self.file.address} has the column {column.name!r} more than once; rename one of them."
                )

    def _without(self, missing: list[WantedColumn]) -> DataError:
        """The error for a file without some columns, with the options that name them, and similar names if there are some."""
        named = [(column.option, _similar(column.name, self.names)) for column in missing]
        again = [word for option, name in named for word in (option, name or "")]
        one = len(missing) == 1
        remedy = f"name the right {'one' if one else 'ones'}"
        if all(again):
            remedy += f", such as {' '.join(map(shlex.quote, again))}"
        elif all(option for option, _ in named):
            remedy += f" by {' and '.join(option for option, _ in named)}"
        columns = " and ".join(repr(column.name) for column in missing)
        return self.lacking(f"no column{'' if one else 's'} {columns}", remedy, again if all(again) else ())

    def lacking(self, column: str, remedy: str, again: Sequence[str] = ()) -> DataError:
        """The error for a file without a column, which lists those that it has. column: such as "no column 'text'"."""
        names = ", ".join(
            name if name == name.strip() and name and name.isprintable() else repr(name) for name in self.names
        )
        return DataError(f"{self.file.address} has {column}, only {names}; {remedy}.{self._why_columns()}", again=again)

    def _why_columns(self) -> str:
        """A further sentence on where the names come from."""
        return ""

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[pa.RecordBatch]:
        """The rows [start, stop) in order, to the end without `stop`.

        Raises DataError, with the file and the row, where they cannot be read, and where the file ends before `stop`.
        """
        try:
            if self._stream is None or self._position != start:
                self._rest = None
                self._position, self._stream = self._from(start)
            while stop is None or self._position < stop:
                batch = self._rest if self._rest is not None else next(self._stream, None)
                self._rest = None
                if batch is None:
                    if stop is None:
                        self._stream = None
                        return
                    raise DataError(f"{self.file.address} ends at row {self._position:,}: it was changed meanwhile.")
                skipped = min(max(0, start - self._position), len(batch))
                taken = len(batch) if stop is None else min(len(batch), stop - self._position)
                self._rest = batch[taken:] if taken < len(batch) else None
                self._position += taken
                if skipped < taken:
                    yield batch[skipped:taken]
        except DataError:
            self._stream = None
            raise

    def columns(self) -> list[pa.ChunkedArray]:
        """All rows of the columns that were asked for, in memory.

        Raises DataError as `batches`, and for the first row that cannot be used.
        """
        table = pa.Table.from_batches(self.batches(), self.schema)
        unusable = table.filter(pc.is_valid(table[REASON])).slice(0, 1).to_pylist()
        if unusable:
            raise DataError(f"{self.file.address}, {self.unit} {unusable[0][LINE]:,}: {unusable[0][MESSAGE]}")
        return [table[column.field] for column in self.wanted]


def _similar(name: str, names: Sequence[str]) -> str | None:
    """The name that is the same but for case, else the most similar one; None where none is similar."""
    folded = {other.casefold(): other for other in names}
    near = nearest(name.casefold(), folded)
    return None if near is None else folded[near]
