"""The XML Repository's sparse layout: trn_X_Y.txt and tst_X_Y.txt beside raw text files, one line a query or label.

trn_X_Y.txt begins with "N L"; each further line lists "label:relevance" pairs, where 0 is the relevance of a label that was
judged not relevant. Texts are in trn_X.txt, tst_X.txt and Y.txt, also spelled trn_X.raw.txt, train.raw.txt, Y.raw.txt,
lbl.raw.txt, label.raw.txt or Yf.txt, also inside raw/ or raw_data/.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

from xmc.data.readers.raw_text import RawTextSource, text_rows
from xmc.data.rows import Defect, Row, read_lines, without_blank_end

__all__ = ["XmlSparseSource"]


class XmlSparseSource(RawTextSource):
    """See the module."""

    format = "xml-sparse"
    matrices: ClassVar[dict[str, str]] = {"train": "trn_X_Y.txt", "test": "tst_X_Y.txt"}

    def _columns(self) -> int | None:
        """See RawTextSource."""
        counts = _counts(next(read_lines(self._matrix(self.splits[0]), self.form), None))
        return counts and counts[1]

    def _joined(self, matrix: Path, texts: Path, labels: int) -> Iterator[Row | Defect]:
        """Texts and matrix lines, side by side."""
        lines = read_lines(matrix, self.form)
        expected = yield from _header(next(lines, None), labels, matrix)
        count, rows = 0, expected or 0
        both = zip_longest(text_rows(texts, self.form, rows), without_blank_end(lines, rows))
        for row, (text, pairs) in enumerate(both):
            if text is None or pairs is None:
                short, long = (texts, matrix) if text is None else (matrix, texts)
                message = f"the file ends after {row} queries, but {long.name} goes on."
                yield Defect("error", short, row + (short == matrix) + 1, "line counts differ", message)
                return
            count += 1
            yield text if isinstance(text, Defect) else _join(text, pairs, matrix)
        if expected is not None and expected != count:
            message = f"the header says {expected} queries, but {count} follow."
            yield Defect("error", matrix, 1, "header disagrees", message)


def _counts(item: tuple[int, str] | Defect | None) -> tuple[int, int] | None:
    """The two numbers of a header; None where it has others."""
    try:
        assert isinstance(item, tuple)
        queries, columns = (int(number) for number in item[1].split())
    except (AssertionError, ValueError):
        return None
    return queries, columns


def _header(item: tuple[int, str] | Defect | None, labels: int, file: Path) -> Generator[Defect, None, int | None]:
    """Yields what is wrong with the header, returns its number of queries."""
    counts = _counts(item)
    if counts is None:
        yield Defect("error", file, 1, "header disagrees", 'the first line must be "queries labels".')
        return None
    queries, columns = counts
    if columns != labels:
        message = f"the header says {columns} labels, but there are {labels}."
        yield Defect("error", file, 1, "header disagrees", message)
    return queries


def _join(text: Row, pairs: tuple[int, str] | Defect, matrix: Path) -> Row | Defect:
    if isinstance(pairs, Defect):
        return pairs
    line, content = pairs
    labels, relevance = [], []
    try:
        for pair in content.split():
            label, _, value = pair.partition(":")
            labels.append(int(label))
            relevance.append(float(value))
    except ValueError:
        message = f"{pair!r} is not a pair label:relevance."
        return Defect("error", matrix, line, "malformed line", message, row_lost=True)
    return Row(matrix, line, text.uid, text.text, labels, relevance)
