"""What every reader yields and every conversion checks: rows of a source, and defects with file and line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from xmc.data.files import TextForm
from xmc.data.files.addresses import local_file
from xmc.data.files.lines import text_lines
from xmc.data.files.undecodable import undecodable

__all__ = ["PACKED", "Defect", "Row", "checked_row", "find_file", "read_lines", "without_blank_end"]

SMALLEST, LARGEST = 2.0**-149, (2 - 2.0**-23) * 2.0**127
"""The numbers above 0 that float32 holds."""
PACKED = ("", ".gz", ".bz2", ".zst")
"""What the name of a text file may have behind its own ending."""


@dataclass(frozen=True)
class Defect:
    """Something wrong in a source file. Errors make a row unusable; warnings do not.

    line: from 1. reason: a short fixed phrase, by which drops are counted. row_lost: the defect stands in place of a row.
    unit: what `line` counts: lines of a text file, or rows. of_file: it is about the whole file, and `line` is an example.
    again: options with which the command, given again, does without it.
    """

    severity: Literal["error", "warning"]
    file: Path
    line: int
    reason: str
    message: str
    row_lost: bool = False
    unit: Literal["line", "row"] = "line"
    of_file: bool = False
    again: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.line:,}: {self.message}"


@dataclass(frozen=True)
class Row:
    """A query or a label of a source.

    labels: the rows of a query's judged labels, [] in label tables. relevance: one of each of these, None for all ones;
    0 says that the label was judged not relevant. rejected: rows of further labels that were judged not relevant.
    unit: what `line` counts: lines of a text file, or rows. group: of a query, by which a data set is split; None for none.
    labelled: False for a query of whose labels nothing is known.
    """

    file: Path
    line: int
    uid: str
    text: str
    labels: list[int]
    relevance: list[float] | None = None
    rejected: list[int] = field(default_factory=list)
    unit: Literal["line", "row"] = "line"
    group: str | None = None
    labelled: bool = True

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

    @property
    def with_labels_once(self) -> Row:
        """The row with each label once, in the order of the source, with the greatest of its relevances."""
        relevance: list[float] | None = None
        best = dict.fromkeys(self.labels, 0.0)
        if self.relevance is not None:
            for label, value in zip(self.labels, self.relevance, strict=True):
                best[label] = max(best[label], value)
            relevance = list(best.values())
        return replace(self, labels=list(best), relevance=relevance, rejected=list(dict.fromkeys(self.rejected)))


def find_file(directory: Path, *names: str) -> Path | None:
    """The first of `names` that is in `directory`, itself or packed (.gz, .bz2 or .zst)."""
    for name in names:
        for ending in PACKED:
            if (candidate := directory / f"{name}{ending}").is_file():
                return candidate
    return None


def read_lines(path: Path, form: TextForm | None = None) -> Iterator[tuple[int, str] | Defect]:
    """(line number from 1, text without its line end) of each line; a Defect for a line that is not of the file's encoding.

    A line feed ends a line, so that a text may hold a carriage return. Raises DataError when the file cannot be read, or a
    packed file ends early.
    """
    for number, text in enumerate(text_lines(local_file(path), form or TextForm(), "\n"), 1):
        wrong = undecodable(text)
        if wrong is None:
            yield number, text.rstrip("\r\n")
        else:
            yield Defect("error", path, number, "broken UTF-8", f"the text {wrong}.", True)


def without_blank_end(lines: Iterator[tuple[int, str] | Defect], rows: int = 0) -> Iterator[tuple[int, str] | Defect]:
    """The lines of a file without the blank ones at its end, which are no rows.

    rows: number of rows that the file must have, where something else says it: up to there a blank line is a row.
    """
    held: list[tuple[int, str] | Defect] = []
    for count, item in enumerate(lines):
        if isinstance(item, tuple) and not item[1].strip() and count >= rows:
            held.append(item)
            continue
        yield from held
        held.clear()
        yield item


def checked_row(row: Row, labels: int | None) -> tuple[Row | None, list[Defect]]:
    """The row as it is used, None where it cannot be, and what is wrong with it.

    A label that stands twice in the row is taken once, with its greater relevance. labels: the size of the label set, or None
    for a row of the label table.
    """
    defects: list[Defect] = []

    def add(severity: Literal["error", "warning"], reason: str, message: str) -> None:
        defects.append(Defect(severity, row.file, row.line, reason, message, unit=row.unit))

    for what, text in (("text", row.text), ("uid", row.uid)):
        if (wrong := undecodable(text)) is not None:
            add("error", f"{what} that is not UTF-8", f"the {what} {wrong}.")
    if not row.text.strip():
        add("warning", "empty text", f"the text of {row.uid!r} is empty.")
    if labels is not None:
        row = _check_labels(row, labels, add)
    return None if any(defect.severity == "error" for defect in defects) else row, defects


def _check_labels(row: Row, labels: int, add: Callable[[Literal["error", "warning"], str, str], None]) -> Row:
    """The row of a query with each label once, as far as it is sound; what is wrong goes to `add`."""
    for rows, what in ((row.labels, "label"), (row.rejected, "rejected label")):
        outside = [label for label in rows if label is None or not 0 <= label < labels]
        if outside:
            add("error", f"{what} out of range", f"{what} {outside[0]} is outside of the {labels} labels (0-based).")
    if row.relevance is not None:
        if len(row.relevance) != len(row.labels):
            add("error", "relevance of another length", f"{len(row.labels)} labels, {len(row.relevance)} relevances.")
            return row
        unusable = [
            value for value in row.relevance if value is None or not (value == 0 or SMALLEST <= value <= LARGEST)
        ]
        if unusable:
            message = (
                f"relevance {unusable[0]} is not a finite number >= 0, or not one of float32, as which it is kept."
            )
            add("error", "bad relevance", message)
            return row
    for rows, what in ((row.labels, "label"), (row.rejected, "rejected label")):
        if len(set(rows)) < len(rows):
            twice = next(label for label, times in Counter(rows).items() if times > 1)
            message = f"{what} {twice} stands more than once in the query {row.uid!r}; it is taken once."
            add("warning", f"duplicate {what} in a row", message)
            row = row.with_labels_once
    positives = {label for label, _ in row.positives}
    if not row.labelled:
        if row.labels or row.rejected:
            message = (
                f"the query {row.uid!r} has labels, but labelled says that nothing is known of it; decide for one."
            )
            add("error", "labels of a query that is not labelled", message)
    elif not positives:
        add("warning", "query without labels", f"the query {row.uid!r} has no labels.")
    contradictions = sorted(positives & set(row.rejected))
    if contradictions:
        message = (
            f"label row {contradictions[0]} is a label of the query {row.uid!r} and rejected for it; decide for one."
        )
        add("error", "label positive and rejected", message)
    return row
