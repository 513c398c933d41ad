"""What a job will do, decided before it does anything: its input files, and the parts of its output."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from xmc.batch.options import Columns
from xmc.data.files import open_file
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

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"part-{self.number:05d}.parquet"


@dataclass(frozen=True)
class Plan:
    """The parts in order, and what makes two jobs the same.

    work: what is done to a row, JSON values, with the fingerprint of the run.
    """

    work: dict[str, Any]
    columns: Columns
    parts: tuple[Part, ...]

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
            "columns": asdict(self.columns),
            "input": files,
            "parts": [[part.file.address, part.start, part.rows] for part in self.parts],
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the description."""
        return fingerprint_of_json(self.description, sort_keys=True)


def make_plan(source: str, columns: Columns, rows_per_part: int, work: dict[str, Any], strict: bool) -> Plan:
    """Look at every input file and cut its rows into parts.

    Of Parquet and Arrow files only the end is read; CSV and JSON files are read once, to count their rows.
    strict: whether lines that are no records are refused.
    Raises DataError for files that cannot be read, that lack a column, or where it is of another type.
    """
    parts: list[Part] = []
    for file in list_files(source):
        rows = open_file(file, columns.wanted, columns.form).count(strict)
        for start in range(0, max(rows, 1), rows_per_part):
            parts.append(Part(len(parts), file, start, min(rows_per_part, rows - start)))
    return Plan(work, columns, tuple(parts))
