"""fastText's layout: a query a line, its labels among its words with a prefix: "__label__sauce __label__cheese How much ...".

Files are named with train, valid and test (cooking.train, train.txt, test.ft.txt.bz2), or one file is given. Labels are named;
their texts are their names, or those of a table labels.* of uid and text beside. Source: fasttext.cc, "Text classification".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from xmc.data.named.labels import NamedLabelsSource, NamedRow, record_file
from xmc.data.readers.split_files import files_by_split, first_lines, only_file
from xmc.data.rows import PACKED, Defect, read_lines, without_blank_end
from xmc.data.sources import TabularColumns

__all__ = ["FastTextSource"]

PREFIX = "__label__"
"""Of labels, unless another is named."""
ENDINGS = tuple(
    f".{ending}{packed}" for ending in ("txt", "train", "valid", "dev", "test", "ft", "fasttext") for packed in PACKED
)
"""Of names of files."""


class FastTextSource(NamedLabelsSource):
    """See the module. Uids of queries are row numbers, from 0."""

    format = "fasttext"
    has_uids = False

    def __init__(self, path: Path, columns: TabularColumns) -> None:
        """See RowSource. Raises DataError for two files of one split."""
        self.directory, self.form = (path if path.is_dir() else path.parent), columns.form
        self.name = path.name if path.is_dir() else path.name.partition(".")[0]
        prefix = re.escape(columns.label_prefix or PREFIX)
        self._label, self._labels = re.compile(rf"(?<!\S){prefix}(\S+)"), re.compile(rf"(?<!\S){prefix}\S+\s*")
        self.columns = columns
        self.files = {split: only_file(files, split) for split, files in _files(path).items()}
        self.label_file = record_file(path, "labels") if path.is_dir() else None
        self.splits = tuple(self.files)

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Whether one of the first lines of a file begins with the usual prefix."""
        return any(
            line.lstrip().startswith(PREFIX)
            for files in _files(path).values()
            for file in files
            for line in first_lines(file)
        )

    @classmethod
    def readable(cls, path: Path) -> bool:
        """Whether there are text files that may have another prefix."""
        return bool(_files(path))

    def _queries(self, split: str, texts: bool) -> Iterator[NamedRow | Defect]:
        """See NamedLabelsSource. A word with the prefix is a label, wherever it stands, as fastText has it."""
        file = self.files[split]
        for row, item in enumerate(without_blank_end(read_lines(file, self.form))):
            if isinstance(item, Defect):
                yield item
            else:
                line, text = item
                yield NamedRow(file, line, str(row), self._labels.sub("", text).strip(), self._label.findall(text))


def _files(path: Path) -> dict[str, list[Path]]:
    if path.is_file():
        return {"train": [path]} if path.name.endswith(ENDINGS) else {}
    return files_by_split(file for file in path.iterdir() if file.is_file() and file.name.endswith(ENDINGS))
