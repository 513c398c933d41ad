"""What every reader yields and every conversion checks: rows of a source, and defects with file and line."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from xmc.errors import DataError

__all__ = ["Defect", "Row", "find_file", "read_lines", "row_defects"]


@dataclass(frozen=True)
class Defect:
    """Something wrong in a source file. Errors make a row unusable; warnings do not.

    line: from 1. reason: a short fixed phrase, by which drops are counted. row_lost: the defect stands in place of a row.
    unit: what `line` counts: lines of a text file, or rows.
    """

    severity: Literal["error", "warning"]
    file: Path
    line: int
    reason: str
    message: str
    row_lost: bool = False
    unit: Literal["line", "row"] = "line"

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.line:,}: {self.message}"


@dataclass(frozen=True)
class Row:
    """A query or a label of a source.

    labels: the rows of a query's judged labels, [] in label tables. relevance: one of each of these, None for all ones;
    0 says that the label was judged not relevant. rejected: rows of further labels that were judged not relevant.
    unit: what `line` counts: lines of a text file, or rows.
    """

    file: Path
    line: int
    uid: str
    text: str
    labels: list[int]
    relevance: list[float] | None = None
    rejected: list[int] = field(default_factory=list)
    unit: Literal["line", "row"] = "line"

    @property
    def positives(self) -> list[tuple[int, float]]:
        """(label row, relevance) of each label of a relevance above 0, in the order of the source."""
        relevance = self.relevance or [1.0] * len(self.labels)
        return [(label, value) for label, value in zip(self.labels, relevance, strict=True) if value > 0]

    @property
    def all_rejected(self) -> list[int]:
        """The rows of the labels that were judged not relevant, by a relevance of 0 or in `rejected`, ascending, each once."""
        relevance = self.relevance or [1.0] * len(self.labels)
        zeros = [label for label, value in zip(self.labels, relevance, strict=True) if value == 0]
        return sorted({*zeros, *self.rejected})


def find_file(directory: Path, *names: str) -> Path | None:
    """The first of `names` that is in `directory`, itself or with .gz."""
    for name in names:
        for candidate in (directory / name, directory / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    return None


def read_lines(path: Path) -> Iterator[tuple[int, str] | Defect]:
    """(line number from 1, text without its line end) of each line; a Defect for a line that is not UTF-8.

    Raises DataError when the file cannot be read, or a gzip file ends early.
    """
    line = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for raw in file:
                line += 1
                try:
                    yield line, raw.rstrip(b"\r\n").decode("utf-8")
                except UnicodeDecodeError as error:
                    yield Defect("error", path, line, "broken UTF-8", f"the text is not UTF-8 ({error}).", True)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read past line {line}: {error}. Is the file complete?") from error


def row_defects(row: Row, labels: int | None) -> list[Defect]:
    """What is wrong with a row; `labels` is the size of the label set, or None for a row of the label table."""
    defects: list[Defect] = []

    def add(severity: Literal["error", "warning"], reason: str, message: str) -> None:
        defects.append(Defect(severity, row.file, row.line, reason, message, unit=row.unit))

    if not row.text.strip():
        add("warning", "empty text", f"the text of {row.uid!r} is empty.")
    if labels is None:
        return defects
    for rows, what in ((row.labels, "label"), (row.rejected, "rejected label")):
        outside = [label for label in rows if not 0 <= label < labels]
        if outside:
            add("error", f"{what} out of range", f"{what} {outside[0]} is outside of the {labels} labels (0-based).")
        if len(set(rows)) < len(rows):
            twice = next(label for label in rows if rows.count(label) > 1)
            add("error", f"duplicate {what} in a row", f"{what} {twice} stands twice in the query {row.uid!r}.")
    if row.relevance is not None:
        if len(row.relevance) != len(row.labels):
            add("error", "relevance of another length", f"{len(row.labels)} labels, {len(row.relevance)} relevances.")
            return defects
        unusable = [value for value in row.relevance if not math.isfinite(value) or value < 0]
        if unusable:
            add("error", "bad relevance", f"relevance {unusable[0]} is not a finite number >= 0.")
            return defects
    positives = {label for label, _ in row.positives}
    if not positives:
        add("warning", "query without labels", f"the query {row.uid!r} has no labels.")
    contradictions = sorted(positives & set(row.rejected))
    if contradictions:
        message = (
            f"label row {contradictions[0]} is a label of the query {row.uid!r} and rejected for it; decide for one."
        )
        add("error", "label positive and rejected", message)
    return defects
