"""JSON lines: an object a line; only the keys that were asked for are looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar, Literal

import orjson

from xmc.cached import cached_property
from xmc.data.files.addresses import InputFile
from xmc.data.files.lines import text_lines
from xmc.data.files.rows import Record, StringsFile
from xmc.data.files.table import TextForm, WantedColumn
from xmc.data.files.undecodable import undecodable
from xmc.errors import DataError, boundary

__all__ = ["JsonLinesFile", "objects", "parse_line"]

SHOWN = 1000
"""Rows whose keys are taken for the names of columns; a key that is asked for and not among them is looked for in all rows."""


class JsonLinesFile(StringsFile):
    """See the module. Values keep their own type, row by row: a string is a string, whatever it looks like. A key that a row
    lacks is null there. Blank lines are left out."""

    unit: ClassVar[Literal["line", "row"]] = "line"
    has_lists: ClassVar[bool] = True

    def __init__(self, file: InputFile, wanted: Sequence[WantedColumn], form: TextForm) -> None:
        """See RecordFile."""
        super().__init__(file, wanted, form)
        self._far: dict[str, bool] = {}
        first = next((line for line in text_lines(file, form) if line.strip()), "")
        if first.lstrip().startswith("["):
            raise DataError(
                f"{file.address} is one JSON array; write an object a line instead, such as by `jq -c '.[]'` or pandas' "
                f"to_json(orient='records', lines=True)."
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """See RecordFile."""
        return self._keys(SHOWN)

    def _every_name(self) -> tuple[str, ...]:
        """See RecordFile."""
        return self._keys(None)

    def _keys(self, rows: int | None) -> tuple[str, ...]:
        """The keys of the first rows, or of all."""
        found: dict[str, None] = {}
        for _, values in islice(objects(text_lines(self.file, self.form)), rows):
            if isinstance(values, dict):
                found.update(dict.fromkeys(values))
        return tuple(found)

    def has(self, name: str) -> bool:
        """See RecordFile."""
        if name not in self.names and name not in self._far:
            every = objects(text_lines(self.file, self.form))
            self._far[name] = any(isinstance(values, dict) and name in values for _, values in every)
        return name in self.names or self._far[name]

    def _why_columns(self) -> str:
        return (
            "" if self.names else " Not one of its lines is a JSON object with keys; JSON lines have an object a line."
        )

    def _records(self) -> Iterator[Record]:
        keys = [column.name for column in self.wanted]
        for line, values in objects(text_lines(self.file, self.form)):
            if isinstance(values, str):
                yield Record(line, None, "malformed line", f"the line {values}.")
            else:
                yield Record(line, [values.get(key) for key in keys])


def objects(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, object) of each line that is not blank; what is wrong with it, as the end of a sentence, in place of an object."""
    for number, line in enumerate(lines, 1):
        if not line.isspace():
            yield number, parse_line(line)


def parse_line(line: str) -> dict[str, Any] | str:
    """The object of a line, or what is wrong with it, as the end of a sentence.

    NaN and Infinity, which JSON does not know and many programs write, are read as numbers.
    """
    try:
        values = orjson.loads(line)
    except ValueError:
        try:
            with boundary(DataError, "is not JSON"):
                values = json.loads(line)
        except DataError as error:
            return undecodable(line) or str(error).removesuffix(".")
    return values if isinstance(values, dict) else f"is not a JSON object but {type(values).__name__}"
