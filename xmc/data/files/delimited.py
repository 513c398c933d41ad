"""CSV and its relatives: a header, then a record a line, or more lines where a quoted cell has line breaks."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import ClassVar, Literal

from xmc.data.files.addresses import InputFile
from xmc.data.files.lines import text_lines
from xmc.data.files.rows import Record, StringsFile
from xmc.data.files.table import LONGEST_LINE, TextForm, WantedColumn
from xmc.errors import DataError

__all__ = ["DelimitedFile", "records"]

DELIMITERS = (",", "\t", ";", "|")
LONG_RECORD = 100
"""Lines; a record of more is remarked upon."""
READ_AGAIN = 8
"""Times that a character is read again, on average, because a quote is not closed; then quotes end with their line."""


_MARKS = {"\r": "\ud80d", "\x00": "\ud800"}
"""Halves of surrogate pairs, which no text that is decoded from a file has, in place of what stops csv inside of a line: a
carriage return, and, in Python 3.10, NUL."""
_STOPS = re.compile(r"\x00|\r(?!\n|\Z)")


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
        self._newline = "\n" if first.endswith("\n") else ""  # then a carriage return alone is a part of a cell
        self.delimiter = form.delimiter or _delimiter(first, file, [column.name for column in wanted])
        longest = form.longest_record
        header = next(records(self._lines(), self.delimiter, 0, longest), Record(1, None, "", "the file is empty"))
        if header.cells is None:
            where = f"line {header.line:,}: {header.message}"
            raise DataError(f"{file.address} has no line with the names of its columns ({where.rstrip('.')}).")
        self._names = tuple(name.strip() for name in header.cells)
        self._column = {name: place for place, name in enumerate(self._names)}

    @property
    def names(self) -> tuple[str, ...]:
        """See RecordFile."""
        return self._names

    def _why_columns(self) -> str:
        shown = {"\t": "a tab"}.get(self.delimiter, f"{self.delimiter!r}")
        return f" Columns are taken from the first line, cut at {shown}; --delimiter names another one."

    def _lines(self) -> Iterator[str]:
        return text_lines(self.file, self.form, self._newline)

    def _records(self) -> Iterator[Record]:
        places = [self._column.get(column.name) for column in self.wanted]
        found = records(self._lines(), self.delimiter, len(self._names), self.form.longest_record)
        for record in islice(found, 1, None):
            cells = record.cells
            if cells is None:
                yield record
            else:
                yield record._replace(cells=[None if place is None else cells[place] for place in places])


def records(lines: Iterator[str], delimiter: str, width: int = 0, longest: int = LONGEST_LINE) -> Iterator[Record]:
    """The records, with all of their cells, which are strings; one that is not sound has none.

    width: number of cells of a sound record; 0: any. longest: characters of a record; a quote that is still open behind them is
    taken for one that is never closed. What RFC 4180 calls a record of that width always comes as it is. Blank
    lines are left out; with one column they are empty cells, except before the first record and at the end.

    A quote that is not closed costs its own line only: of a record of several lines that is not sound, the second line is
    the next to be read. The lines that the record took, and the one behind, then count as sound only where no quote stands
    inside of a cell that is not quoted: they may be the rest of a quoted cell.
    """
    csv.field_size_limit(max(csv.field_size_limit(), 2 * longest))
    source = _Lines(lines, longest)
    strict = _strict_record(delimiter)
    blanks: list[int] = []
    begun = False
    while True:
        try:
            for cells in csv.reader(source, delimiter=delimiter, strict=True):
                line, held = source.first, source.held
                if source.marked:
                    cells = [_unmarked(cell) for cell in cells]
                wrong = ""
                if not cells or (len(cells) == 1 and width != 1 and cells[0].isspace()):
                    blanks.append(line)
                    source.done()
                    continue
                if len(held) > 1 or source.doubted:
                    wrong = _doubt(source, cells, delimiter, width, strict)
                if wrong:
                    break
                if blanks:
                    yield from _empty(blanks, begun and width == 1)
                    blanks = []
                begun = True
                if width and len(cells) != width:
                    yield Record(line, None, "line with another number of cells", _width(cells, delimiter, width))
                else:
                    yield Record(line, cells, remark=_remark(held, delimiter, width) if len(held) > 1 else None)
                source.done()
            else:
                return
        except csv.Error as error:
            wrong = _why(str(error), source.first, source.line)
        yield from _empty(blanks, begun and width == 1)
        begun, blanks = True, []
        yield Record(source.first, None, "malformed line", f"the record {wrong}")
        source.go_back()


class _Lines(Iterator[str]):
    """Lines that are held until their record is sound, so that all but the first can be read again.

    What stops csv inside of a line is marked: there one of _MARKS stands in its place.

    first: the line where the record began. line: the last one that was read. held: the lines of the record. marked: whether
    some line so far has marks.
    """

    def __init__(self, lines: Iterator[str], longest: int) -> None:
        self._lines, self._longest = lines, longest
        self._again: list[str] = []  # in reverse
        self._fresh = self._twice = self._size = 0
        self._doubted_to = 0
        self.first, self.line = 1, 0
        self.held: list[str] = []
        self.marked = False

    def __next__(self) -> str:
        if self.held and (self._size > self._longest or self._twice > READ_AGAIN * self._fresh):
            raise StopIteration
        if self._again:
            line = self._again.pop()
        else:
            line = next(self._lines)
            self._fresh += len(line)
            if ("\r" in line or "\x00" in line) and _STOPS.search(line):
                line, self.marked = _STOPS.sub(lambda stop: _MARKS[stop[0]], line), True
        self._size += len(line)
        self.line += 1
        self.held.append(line)
        return line

    @property
    def doubted(self) -> bool:
        """Whether the record begins where one that was not sound may have ended."""
        return self.first <= self._doubted_to

    def done(self) -> None:
        """The next record begins."""
        self.held, self._size, self.first = [], 0, self.line + 1

    def go_back(self) -> None:
        """To the second line of the record, which is not sound."""
        self._twice += self._size - len(self.held[0])
        self._doubted_to = max(self._doubted_to, self.line + 1)
        self._again.extend(reversed(self.held[1:]))
        self.line = self.first
        self.done()


def _unmarked(cell: str) -> str:
    for character, mark in _MARKS.items():
        cell = cell.replace(mark, character)
    return cell


def _strict_record(delimiter: str) -> re.Pattern[str]:
    """A record as RFC 4180 has it: a cell that has a quote is quoted, and its quotes are doubled."""
    between = re.escape(delimiter)
    cell = rf'(?:"(?:[^"]|"")*"|[^"\r\n{between}]*)'
    return re.compile(rf"{cell}(?:{between}{cell})*[\r\n]*")


def _doubt(source: _Lines, cells: list[str], delimiter: str, width: int, strict: re.Pattern[str]) -> str:
    """What is wrong with a record of several lines, or one behind a record that is not sound; "" for nothing."""
    if width and len(cells) != width and len(source.held) > 1:
        return f"goes on to line {source.line:,}, and then {_cells(cells, width)} A quote may not be closed."
    if source.doubted and strict.fullmatch("".join(source.held)) is None:
        return "follows one that is not sound, and may be a part of it: a quote stands inside of a cell that is not quoted."
    return ""


def _empty(blanks: list[int], count: bool) -> Iterator[Record]:
    """Blank lines as records, where they count."""
    return (Record(line, [""]) for line in blanks if count)


def _cells(cells: list[str], width: int) -> str:
    return f"has {len(cells)} cells, but the header names {width} columns."


def _width(cells: list[str], delimiter: str, width: int) -> str:
    few = "" if len(cells) < width else f" A cell that holds {delimiter!r} must be quoted."
    return f"the record {_cells(cells, width)}{few}"


def _remark(held: list[str], delimiter: str, width: int) -> str | None:
    """What is noticed of a sound record of several lines, which a quote that is not closed can look like."""
    if len(held) > LONG_RECORD:
        return f"record of more than {LONG_RECORD} lines"
    if width > 1 and len(held) > 2 and all(line.count(delimiter) == width - 1 for line in held):
        return "record whose lines look like records"
    return None


def _why(message: str, first: int, last: int) -> str:
    """What csv says is wrong with the record of these lines."""
    if "unexpected end" in message:
        return f"opens a quote that is not closed up to line {last:,}."
    if "expected after" in message:
        behind = "" if last == first else f", in line {last:,},"
        return f"has a closing quote{behind} with text behind it; a quote inside of a quoted cell is written twice."
    return f"is not CSV ({message})."


def _delimiter(header: str, file: InputFile, wanted: Sequence[str]) -> str:
    """The delimiter of a header: the one that shows the most of the wanted columns; then the most columns; then the usual."""
    usual = "\t" if file.ending in (".tsv", ".tab") else ","

    def shown(delimiter: str) -> tuple[int, int, bool]:
        rows: list[list[str]] = list(csv.reader([header], delimiter=delimiter))
        names = {name.strip() for row in rows for name in row}
        return len(names & set(wanted)), len(names), delimiter == usual

    return max(DELIMITERS, key=shown)
