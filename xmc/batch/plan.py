"""What a job will do, decided before it does anything: its input files, and the parts of its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from xmc.batch.form import OutputForm, kept_columns, wanted_columns
from xmc.batch.options import Columns
from xmc.cached import cached_property
from xmc.data.files import WantedColumn, open_file
from xmc.data.files.addresses import InputFile, list_files
from xmc.storage.fingerprints import fingerprint_of_json

__all__ = ["Part", "Plan", "make_plan"]

VERSION = 2


@dataclass(frozen=True)
class Part:
    """One file of output: the rows [start, start + rows) of an input file."""

    number: int
    file: InputFile
    start: int
    rows: int
    format: str = "parquet"

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"part-{self.number:05d}.{self.format}"


@dataclass(frozen=True)
class Plan:
    """The parts in order, and what makes two jobs the same.

    work: what is done to a row, JSON values, with the fingerprint of the run. form: how the result is written. kept: names and
    types of the columns of the input that are written beside it.
    """

    work: dict[str, Any]
    columns: Columns
    parts: tuple[Part, ...]
    form: OutputForm
    kept: pa.Schema

    @property
    def wanted(self) -> tuple[WantedColumn, ...]:
        """What is asked of an input file."""
        return wanted_columns(self.columns, self.kept.names)

    @property
    def files(self) -> int:
        """Number of input files."""
        return len({part.file.address for part in self.parts})

    @property
    def rows(self) -> int:
        """Number of rows of input."""
        return sum(part.rows for part in self.parts)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What a job and the one that it is resumed by must have in common, by name; JSON values."""
        files = {part.file.address: [part.file.size, part.file.modified] for part in self.parts}
        return {
            "version": VERSION,
            **self.work,
            **self.form.describe(),
            **({"kept": {field.name: str(field.type) for field in self.kept}} if len(self.kept) else {}),
            "columns": self.columns.described,
            "input": files,
            "parts": [[part.file.address, part.start, part.rows] for part in self.parts],
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the description."""
        return fingerprint_of_json(self.description, sort_keys=True)


def make_plan(
    source: str,
    columns: Columns,
    rows_per_part: int,
    work: dict[str, Any],
    strict: bool,
    form: OutputForm,
    result: Sequence[str],
) -> Plan:
    """Look at every input file and cut its rows into parts.

    Of Parquet and Arrow files only the end is read; CSV and JSON files are read once, to count their rows.
    strict: whether lines that are no records are refused. form, result: how results are written, and the names of their
        columns.
    Raises DataError for files that cannot be read, that lack a column, or where it is of another type, and as `kept_columns`.
    """
    parts: list[Part] = []
    files = list_files(source)
    kept = kept_columns(files, columns, form, result)
    for file in files:
        rows = open_file(file, columns.wanted, columns.form).count(strict)
        for start in range(0, max(rows, 1), rows_per_part):
            parts.append(Part(len(parts), file, start, min(rows_per_part, rows - start), form.format))
    return Plan(work, columns, tuple(parts), form, kept)
