"""The layout of PECOS' text2text: "label,label<tab>text" lines beside a file with a label's text a line.

Labels are 0-based lines of output-labels.txt (also output-items.txt, labels.txt); "3::0.5" is the label 3 with the relevance
0.5, and a relevance of 0 says that it was judged not relevant. Files of queries have train or test in their names, such as
training-data.txt.
Source: github.com/amzn/pecos, pecos/apps/text2text/README.md, and Preprocessor.load_data_from_file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from xmc.data.named.filters import FilteredSource
from xmc.data.readers.raw_text import text_rows
from xmc.data.readers.split_files import files_by_split, first_lines, only_file
from xmc.data.rows import PACKED, Defect, Row, find_file, read_lines, without_blank_end
from xmc.data.sources import TabularColumns

__all__ = ["PecosSource"]

LABEL_TEXTS = ("output-labels.txt", "output-items.txt", "output_labels.txt", "output_items.txt", "labels.txt")
_LABEL = r"[0-9]+(?::[^,:\t]*:[^,:\t]*)?"
_LINE = re.compile(rf"\s*(?:{_LABEL}(?:\s*,\s*{_LABEL})*)?\s*\t")
"""What a line begins with."""


class PecosSource(FilteredSource):
    """See the module. Uids are row numbers, from 0."""

    format = "pecos"
    has_uids = False

    def __init__(self, path: Path, columns: TabularColumns) -> None:
        """See RowSource. Raises DataError for two files of one split."""
        self.directory, self.name, self.form = path, path.name, columns.form
        self.files = {split: only_file(files, split) for split, files in _files(path).items()}
        self.splits = tuple(self.files)

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Whether there are label texts and a file whose first line has the form of the layout."""
        return find_file(path, *LABEL_TEXTS) is not None and bool(_files(path))

    def labels(self) -> Iterator[Row | Defect]:
        """The label texts."""
        file = find_file(self.directory, *LABEL_TEXTS)
        assert file is not None
        yield from text_rows(file, self.form, 0)

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """One query a line."""
        file = self.files[split]
        for row, item in enumerate(without_blank_end(read_lines(file, self.form))):
            yield item if isinstance(item, Defect) else _row(file, *item, str(row))


def _row(file: Path, line: int, content: str, uid: str) -> Row | Defect:
    if _LINE.match(content) is None:
        message = 'the line is not of the form "label,label<tab>text", with 0-based lines of the labels.'
        return Defect("error", file, line, "malformed line", message, row_lost=True)
    names, _, text = content.partition("\t")
    labels: list[int] = []
    relevance: list[float] = []
    for part in filter(None, (part.strip() for part in names.split(","))):
        label, _, of_label = part.partition(":")
        labels.append(int(label))
        value = of_label.rpartition(":")[2]
        try:
            relevance.append(float(value) if value else 1.0)
        except ValueError:
            message = f"the relevance {value!r} of the label {label} is no number."
            return Defect("error", file, line, "bad relevance", message, row_lost=True)
    return Row(file, line, uid, text.strip(), labels, relevance)


def _files(directory: Path) -> dict[str, list[Path]]:
    if not directory.is_dir():
        return {}
    endings = tuple(f".{ending}{packed}" for ending in ("txt", "tsv") for packed in PACKED)
    files = (file for file in directory.iterdir() if file.is_file() and file.name.endswith(endings))
    return files_by_split(file for file in files if not file.name.startswith("filter") and _fits(file))


def _fits(file: Path) -> bool:
    return any(_LINE.match(line) is not None for line in first_lines(file)[:1])
