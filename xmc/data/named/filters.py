"""Filter files, as the XML Repository writes them: filter_labels_test.txt, "query label" a line, 0-based rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xmc.data.files import TextForm
from xmc.data.rows import Defect, find_file, read_lines
from xmc.data.sources import RowSource

__all__ = ["FilteredSource"]


class FilteredSource(RowSource):
    """A source whose directory may hold filter files."""

    directory: Path
    form: TextForm
    """How its text files are written."""

    def filter(self, split: str) -> Iterator[tuple[Path, int, int, int] | Defect]:
        """The pairs of the split's filter file, if there is one."""
        names = {"train": ("filter_labels_train.txt",), "test": ("filter_labels_test.txt",)}.get(split, ())
        file = find_file(self.directory, *names) if names else None
        if file is None:
            return
        for item in read_lines(file, self.form):
            if isinstance(item, Defect):
                yield item
                continue
            line, text = item
            if not text.strip():
                continue
            try:
                query, label = (int(number) for number in text.split())
                yield file, line, query, label
            except ValueError:
                yield Defect("error", file, line, "malformed filter line", f"{text!r} is not two whole numbers.", True)
