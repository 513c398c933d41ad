"""A reader from outside of the package: labels.toy with a label a line, `<split>.toy` with lines "text => label, label"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from xmc.data.readers import READERS, TabularColumns
from xmc.data.rows import Defect, Row, read_lines
from xmc.data.sources import RowSource


class ToyLinesSource(RowSource):
    """The layout "toy-lines"."""

    format: ClassVar[str] = "toy-lines"
    has_uids: ClassVar[bool] = False

    def __init__(self, path: Path, columns: TabularColumns) -> None:
        self.directory, self.name = path, path.name
        self.splits = tuple(split for split in ("train", "test") if (path / f"{split}.toy").is_file())
        self._rows: dict[str, int] = {}

    @classmethod
    def fits(cls, path: Path) -> bool:
        return (path / "labels.toy").is_file()

    def labels(self) -> Iterator[Row | Defect]:
        file = self.directory / "labels.toy"
        for item in read_lines(file):
            if isinstance(item, Defect):
                yield item
                continue
            line, text = item
            self._rows[text] = line - 1
            yield Row(file, line, text.upper(), text, [])

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        file = self.directory / f"{split}.toy"
        for item in read_lines(file):
            if isinstance(item, Defect):
                yield item
                continue
            line, (text, _, names) = item[0], item[1].partition(" => ")
            rows = [self._rows.get(name.strip(), -1) for name in names.split(",")]
            yield Row(file, line, str(line - 1), text, rows)


READERS.register("toy-lines", ToyLinesSource)
