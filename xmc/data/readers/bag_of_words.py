"""The XML Repository's bag-of-words single file: header "N F L", then "label,label feature:value feature:value" lines.

There is no text in this layout: a query's text is its features as words ("f17 f4021"), values left out, and a label's is
"label12", or its line in Yf.txt, if that is there. It has no relevances. Files: train.txt and test.txt, or one named
*train*.txt, *test*.txt. A blank line is a query with neither, but for those at the end that are more than the header says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xmc.data.files import TextForm
from xmc.data.named.filters import FilteredSource
from xmc.data.readers.raw_text import text_rows
from xmc.data.readers.split_files import first_lines
from xmc.data.rows import PACKED, Defect, Row, find_file, read_lines, without_blank_end
from xmc.data.sources import TabularColumns

__all__ = ["BagOfWordsSource"]

MOST_LABELS = 50_000_000
"""Labels that are made up where the header alone speaks of them; more are taken for a damaged header."""


class BagOfWordsSource(FilteredSource):
    """See the module. Uids are 0-based row numbers."""

    format = "bag-of-words"
    has_uids = False

    def __init__(self, path: Path, columns: TabularColumns) -> None:
        """See RowSource."""
        self.directory, self.name = path, path.name
        self.form = columns.form
        self.files = _files(path)
        self.splits = tuple(self.files)

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Whether a train or test file with a header of three numbers is there."""
        return any(_numbers(line) is not None for file in _files(path).values() for line in first_lines(file)[:1])

    def labels(self) -> Iterator[Row | Defect]:
        """The labels of Yf.txt, or made-up ones, in the number that the header says."""
        file = next(iter(self.files.values()))
        header = _header(file, self.form)
        if header is None:
            yield Defect("error", file, 1, "header disagrees", 'the first line must be "queries features labels".')
            return
        if (names := find_file(self.directory, "Yf.txt")) is not None:
            yield from text_rows(names, self.form, header[2])
            return
        if header[2] > MOST_LABELS:
            message = f"the header says {header[2]:,} labels, and more than {MOST_LABELS:,} need a file Yf.txt; is it damaged?"
            yield Defect("error", file, 1, "header disagrees", message)
            return
        for row in range(header[2]):
            yield Row(file, 1, str(row), f"label{row}", [])

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """One query a line; an empty label field (a line that begins with a space) is a query without labels."""
        file = self.files[split]
        header = _header(file, self.form)
        if header is None:
            yield Defect("error", file, 1, "header disagrees", 'the first line must be "queries features labels".')
            return
        if header[2] != labels:
            message = f"the header says {header[2]} labels, but there are {labels}."
            yield Defect("error", file, 1, "header disagrees", message)
        lines = read_lines(file, self.form)
        next(lines)
        count = 0
        for item in without_blank_end(lines, header[0]):
            count += 1
            yield item if isinstance(item, Defect) else _row(file, *item, header[1])
        if count != header[0]:
            message = f"the header says {header[0]} queries, but {count} follow."
            yield Defect("error", file, 1, "header disagrees", message)


def _row(file: Path, line: int, text: str, features: int) -> Row | Defect:
    first, _, rest = text.partition(" ")
    try:
        labels = [int(label) for label in first.split(",") if label]
        words = [int(pair.partition(":")[0]) for pair in rest.split() if float(pair.partition(":")[2]) != 0]
    except ValueError:
        message = 'the line is not of the form "label,label feature:value feature:value".'
        return Defect("error", file, line, "malformed line", message, row_lost=True)
    if words and not 0 <= min(words) <= max(words) < features:
        message = f"feature {max(words)} is outside of the {features} features of the header (0-based)."
        return Defect("error", file, line, "feature out of range", message, row_lost=True)
    return Row(file, line, str(line - 2), " ".join(f"f{word}" for word in words), labels)


def _files(directory: Path) -> dict[str, Path]:
    if not directory.is_dir():
        return {}
    files = {}
    for split in ("train", "test"):
        matches = sorted(file for file in directory.iterdir() if split in file.name and _is_text(file))
        if matches:
            files[split] = matches[0]
    return files


def _is_text(file: Path) -> bool:
    return file.name.endswith(tuple(f".txt{packed}" for packed in PACKED)) and not file.name.startswith("filter")


def _header(file: Path, form: TextForm) -> tuple[int, int, int] | None:
    item = next(read_lines(file, form), None)
    return _numbers(item[1]) if isinstance(item, tuple) else None


def _numbers(header: str) -> tuple[int, int, int] | None:
    try:
        queries, features, labels = (int(number) for number in header.split())
    except ValueError:
        return None
    return queries, features, labels
