"""The common part of files whose rows are parsed one by one: cells by their kind, batches of rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from xmc.data.files.addresses import InputFile
from xmc.data.files.cells import CELLS, CellProblem
from xmc.data.files.table import TYPES, RecordFile, TextForm, WantedColumn, batch_schema
from xmc.data.files.undecodable import with_encoding
from xmc.errors import DataError

__all__ = ["Record", "StringsFile"]

ROWS = 8192
BYTES = 16 << 20
"""A batch ends with the row whose texts fill it."""


class Record(NamedTuple):
    """A row as it stands in a file.

    line: where it begins. cells: of the wanted columns, None for a row that is none, for a reason (a short phrase), with a
    message (a sentence). remark: a short phrase on a row that can be used.
    """

    line: int
    cells: list[Any] | None
    reason: str = ""
    message: str = ""
    remark: str | None = None


class StringsFile(RecordFile):
    """See the module. A file type says how its records are found."""

    has_lists: ClassVar[bool]
    """Whether a cell can be a list; where not, a string of labels is cut at commas unless another separator is named."""

    def __init__(self, file: InputFile, wanted: Sequence[WantedColumn], form: TextForm) -> None:
        """See RecordFile."""
        super().__init__(file, wanted, form)
        self.schema = batch_schema(self.wanted, [TYPES.get(column.kind, pa.string()) for column in self.wanted])
        self.separator = form.separator or (None if self.has_lists else ",")

    @abstractmethod
    def _records(self) -> Iterator[Record]:
        """The records, from the first on."""

    def count(self, strict: bool = False) -> int:
        """See RecordFile."""
        rows = 0
        for record in self._records():
            if strict and record.cells is None:
                raise DataError(
                    f"{self.file.address}, line {record.line:,}: {record.message} Mend it, or give another --on-bad-row.",
                    again=with_encoding(record.message),
                )
            rows += 1
        return rows

    def _from(self, row: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        return 0, self._batches()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        rows: list[tuple[Any, ...]] = []
        size = 0
        for record in self._records():
            rows.append(self._row(record))
            size += sum(_size(cell) for cell in record.cells or ())
            if len(rows) == ROWS or size >= BYTES:
                yield self._batch(rows)
                rows, size = [], 0
        if rows:
            yield self._batch(rows)

    def _row(self, record: Record) -> tuple[Any, ...]:
        """Where, what is wrong or noticed, and the cells by their kinds; null for a cell that cannot be used."""
        if record.cells is None:
            return record.line, record.reason, record.message, None, *[None] * len(self.wanted)
        cells: list[Any] = []
        reason = message = None
        for column, cell in zip(self.wanted, record.cells, strict=True):
            try:
                cells.append(CELLS[column.kind](cell, self.separator))
            except CellProblem as problem:
                reason, message = reason or problem.reason, message or problem.message
                cells.append(None)
        return record.line, reason, message, record.remark, *cells

    def _batch(self, rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
        columns = [
            pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), self.schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _size(cell: Any) -> int:
    """About the bytes of a cell in memory."""
    return len(cell) if isinstance(cell, str) else 32 * len(cell) if isinstance(cell, list) else 0
