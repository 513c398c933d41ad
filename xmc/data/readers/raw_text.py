"""The common part of layouts with raw text files, one line a query or label, beside a matrix of judged pairs for each split.

A blank line is an empty text, but for those at the end of a file that are more than the matrix has rows (of labels: columns).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from xmc.data.files import TextForm
from xmc.data.named.filters import FilteredSource
from xmc.data.rows import Defect, Row, find_file, read_lines, without_blank_end
from xmc.data.sources import TabularColumns

__all__ = ["RawTextSource", "text_rows"]

QUERY_TEXTS = {
    "train": ("trn_X.txt", "trn_X.raw.txt", "trn.raw.txt", "train.raw.txt", "X.trn.txt"),
    "test": ("tst_X.txt", "tst_X.raw.txt", "tst.raw.txt", "test.raw.txt", "X.tst.txt"),
}
LABEL_TEXTS = (
    "Y.txt",
    "Y.raw.txt",
    "lbl_X.txt",
    "lbl_X.raw.txt",
    "lbl.raw.txt",
    "label.raw.txt",
    "Yf.txt",
    "output-items.txt",
)


class RawTextSource(FilteredSource):
    """Uids are 0-based row numbers; a reader names its matrices and joins them with the texts."""

    has_uids = False
    matrices: ClassVar[dict[str, str]]
    """The matrix file of each split."""

    def __init__(self, path: Path, columns: TabularColumns) -> None:
        """See RowSource."""
        self.directory, self.name = path, path.name
        self.form = columns.form
        self.splits = tuple(split for split, name in self.matrices.items() if find_file(path, name))

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Whether the directory holds a matrix and the label texts."""
        return bool(find_file(path, *cls.matrices.values()) and _find_texts(path, LABEL_TEXTS))

    def labels(self) -> Iterator[Row | Defect]:
        """The label texts."""
        file = _find_texts(self.directory, LABEL_TEXTS)
        assert file is not None
        yield from text_rows(file, self.form, self._columns() or 0)

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """Texts and rows of the matrix, side by side."""
        matrix, texts = self._matrix(split), _find_texts(self.directory, QUERY_TEXTS[split])
        if texts is None:
            wanted = " or ".join(QUERY_TEXTS[split])
            yield Defect("error", matrix, 1, "no text file", f"there is no text file beside it ({wanted}).")
            return
        yield from self._joined(matrix, texts, labels)

    def _matrix(self, split: str) -> Path:
        """The matrix file of a split that is there."""
        matrix = find_file(self.directory, self.matrices[split])
        assert matrix is not None
        return matrix

    @abstractmethod
    def _columns(self) -> int | None:
        """The number of labels that the first split's matrix says; None where it cannot be read."""

    @abstractmethod
    def _joined(self, matrix: Path, texts: Path, labels: int) -> Iterator[Row | Defect]:
        """The queries of a matrix with their texts."""


def text_rows(file: Path, form: TextForm, rows: int) -> Iterator[Row | Defect]:
    """One row a line, uid = 0-based row number; rows: as many as there must be, for `without_blank_end`."""
    for row, item in enumerate(without_blank_end(read_lines(file, form), rows)):
        yield item if isinstance(item, Defect) else Row(file, item[0], str(row), item[1].strip(), [])


def _find_texts(directory: Path, names: tuple[str, ...]) -> Path | None:
    """A raw text file in the directory, or in raw/ or raw_data/ below it."""
    for folder in (directory, directory / "raw", directory / "raw_data"):
        if file := find_file(folder, *names):
            return file
    return None
