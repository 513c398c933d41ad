"""The XML Repository's sparse layout: trn_X_Y.txt and tst_X_Y.txt beside raw text files, one line a query or label.

trn_X_Y.txt begins with "N L"; each further line lists "label:relevance" pairs. Texts are in trn_X.txt, tst_X.txt and
Y.txt, also spelled trn_X.raw.txt, train.raw.txt, Y.raw.txt, lbl.raw.txt or label.raw.txt, also inside raw/ or raw_data/.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import zip_longest
from pathlib import Path

from xmc.data.readers.filters import FilteredSource
from xmc.data.rows import Defect, Row, find_file, read_lines

__all__ = ["LABEL_TEXTS", "QUERY_TEXTS", "XmlSparseSource", "find_texts", "text_rows"]

QUERY_TEXTS = {
    "train": ("trn_X.txt", "trn_X.raw.txt", "trn.raw.txt", "train.raw.txt"),
    "test": ("tst_X.txt", "tst_X.raw.txt", "tst.raw.txt", "test.raw.txt"),
}
LABEL_TEXTS = ("Y.txt", "Y.raw.txt", "lbl_X.txt", "lbl_X.raw.txt", "lbl.raw.txt", "label.raw.txt")
MATRICES = {"train": "trn_X_Y.txt", "test": "tst_X_Y.txt"}


class XmlSparseSource(FilteredSource):
    """See the module. Uids are 0-based row numbers."""

    format = "xml-sparse"
    has_uids = False

    def __init__(self, directory: Path) -> None:
        self.directory, self.name = directory, directory.name
        self.splits = tuple(split for split, name in MATRICES.items() if find_file(directory, name))

    @staticmethod
    def fits(directory: Path) -> bool:
        """Whether the directory holds a matrix and the label texts."""
        return bool(find_file(directory, *MATRICES.values()) and find_texts(directory, LABEL_TEXTS))

    def labels(self) -> Iterator[Row | Defect]:
        """The label texts."""
        file = find_texts(self.directory, LABEL_TEXTS)
        assert file is not None
        yield from text_rows(file)

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """Texts and matrix lines, side by side."""
        matrix, texts = find_file(self.directory, MATRICES[split]), find_texts(self.directory, QUERY_TEXTS[split])
        assert matrix is not None
        if texts is None:
            wanted = " or ".join(QUERY_TEXTS[split])
            yield Defect("error", matrix, 1, "no text file", f"there is no text file beside it ({wanted}).")
            return
        lines = read_lines(matrix)
        expected = yield from _header(next(lines, None), labels, matrix)
        count = 0
        for row, (text, pairs) in enumerate(zip_longest(text_rows(texts), lines)):
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


def find_texts(directory: Path, names: tuple[str, ...]) -> Path | None:
    """A raw text file in the directory, or in raw/ or raw_data/ below it."""
    for folder in (directory, directory / "raw", directory / "raw_data"):
        if found := find_file(folder, *names):
            return found
    return None


def text_rows(file: Path) -> Iterator[Row | Defect]:
    """One row a line, uid = 0-based row number."""
    for row, item in enumerate(read_lines(file)):
        yield item if isinstance(item, Defect) else Row(file, item[0], str(row), item[1].strip(), [])


def _header(item: tuple[int, str] | Defect | None, labels: int, file: Path) -> Generator[Defect, None, int | None]:
    """Yields what is wrong with the header, returns its number of queries."""
    try:
        assert isinstance(item, tuple)
        queries, columns = (int(part) for part in item[1].split())
    except (AssertionError, ValueError):
        yield Defect("error", file, 1, "header disagrees", 'the first line must be "queries labels".')
        return None
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
