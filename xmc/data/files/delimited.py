"""CSV and its relatives: a header, then a record a line, or more lines where a quoted cell has line breaks."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import ClassVar, Literal

from xmc.data.files.addresses import InputFile
from xmc.data.files.lines import text_lines
from xmc.data.files.rows import Record, StringsFile
from xmc.data.files.table import TextForm, WantedColumn
from xmc.errors import DataError

__all__ = ["DelimitedFile", "records"]

DELIMITERS = (",", "\t", ";", "|")
LONGEST_CELL = 64 << 20
"""Characters; a longer cell is taken for a quote that is never closed."""
LOOKED_AT = 100
"""Lines of a record that are looked at for whether they are records of their own."""


class DelimitedFile(StringsFile):
    """See the module. Quotes are double quotes, and doubled inside of a quoted cell (RFC 4180).

    Cells are strings as they are written, so that 007 stays 007. A record that is not sound is a row that cannot be used.
    """

    unit: ClassVar[Literal["line", "row"]] = "line"
    has_lists: ClassVar[bool] = False

    def __init__(self, file: InputFile, wanted: Sequence[WantedColumn], form: TextForm) -> None:
        """See RecordFile."""
        super().__init__(file, wanted, form)
        first = next(text_lines(file, form), "")
        self.delimiter = form.delimiter or _delimiter(first, file, [column.name for column in wanted])
        line, header = next(records(text_lines(file, form), self.delimiter), (1, "is empty"))
        if isinstance(header, str):
            raise DataError(f"{file.address} has no line with the names of its columns: line {line:,} {header}.")
        self._names = tuple(name.strip() for name in header)
        self._column = {name: place for place, name in enumerate(self._names)}

    @property
    def names(self) -> tuple[str, ...]:
        """See RecordFile."""
        return self._names

    def _why_columns(self) -> str:
        shown = {"\t": "a tab"}.get(self.delimiter, f"{self.delimiter!r}")
        return f" Columns are taken from the first line, cut at {shown}; --delimiter names another one."

    def _records(self) -> Iterator[Record]:
        places = [self._column.get(column.name) for column in self.wanted]
        width = len(self._names)
        found = records(text_lines(self.file, self.form), self.delimiter, width)
        for line, cells in islice(found, 1, None):
            if isinstance(cells, str):
                yield Record(line, None, "malformed line", f"the record {cells}.")
            elif len(cells) != width:
                few = "" if len(cells) < width else f" A cell that holds {self.delimiter!r} must be quoted."
                message = f"the record has {len(cells)} cells, but the header names {width} columns.{few}"
                yield Record(line, None, "line with another number of cells", message)
            else:
                yield Record(line, [None if place is None else cells[place] for place in places])


def records(lines: Iterator[str], delimiter: str, width: int = 0) -> Iterator[tuple[int, list[str] | str]]:
    """(line, cells) of each record; what is wrong with it, as the end of a sentence, in place of cells.

    Blank lines are left out.

    After a record that is not sound reading goes on at its second line, so that a quote that is never closed costs its own
    line only. width: number of cells of a record; a quoted cell over several lines that all look like records of that
    width is taken for a quote that is not closed, which another one happens to end. 0: not looked at.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    source = _Replay(lines)
    while True:
        reader = csv.reader(source, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                first, held = source.first, source.held
                if width > 1 and len(held) > 2 and all(line.count(delimiter) == width - 1 for line in held[:LOOKED_AT]):
                    yield first, f"opens a quote that line {source.line:,} closes, over lines that look like records"
                    source.go_back()
                    break
                source.done()
                if cells:
                    yield first, cells
            else:
                return
        except csv.Error as error:
            yield source.first, _why(error, source.first, source.line)
            source.go_back()


class _Replay(Iterator[str]):
    """Lines that are held until their record is sound, so that all but the first can be read again.

    first: the line where the record began. line: the last one that was read. held: the lines of the record.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: Iterator[str] = iter(())
        self.first, self.line = 1, 0
        self.held: list[str] = []

    def __next__(self) -> str:
        line = next(self._again, None)
        if line is None:
            line = next(self._lines)
        self.line += 1
        self.held.append(line)
        return line

    def done(self) -> None:
        """The next record begins."""
        self.held, self.first = [], self.line + 1

    def go_back(self) -> None:
        """To the second line of the record."""
        self._again, self.held = iter([*self.held[1:], *self._again]), []
        self.line, self.first = self.first, self.first + 1


def _why(error: csv.Error, first: int, last: int) -> str:
    message = str(error)
    if "unexpected end" in message:
        return f"opens a quote that is not closed before the file ends, in line {last:,}"
    if "field larger" in message:
        return f"has a cell of more than {LONGEST_CELL:,} characters, up to line {last:,}; is its quote closed?"
    if "expected after" in message:
        behind = "" if last == first else f", in line {last:,},"
        return f"has a closing quote{behind} with text behind it; a quote inside of a quoted cell is written twice"
    return f"is not CSV ({message})"


def _delimiter(header: str, file: InputFile, wanted: Sequence[str]) -> str:
    """The delimiter of a header: the one that shows the most of the wanted columns; then the most columns; then the usual."""
    usual = "\t" if file.ending in (".tsv", ".tab") else ","

    def shown(delimiter: str) -> tuple[int, int, bool]:
        rows: list[list[str]] = list(csv.reader([header], delimiter=delimiter))
        names = {name.strip() for row in rows for name in row}
        return len(names & set(wanted)), len(names), delimiter == usual

    return max(DELIMITERS, key=shown)
