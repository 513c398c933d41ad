"""Files of records, such as Parquet, CSV and JSON lines: train.*, test.* (and optionally labels.*) in a directory, or one file.

See xmc.data.named.columns for what their columns are.
"""

from __future__ import annotations

from pathlib import Path

from xmc.data.files.addresses import ending_of
from xmc.data.named.columns import NamedColumnsSource
from xmc.data.named.labels import record_file
from xmc.data.sources import TabularColumns

__all__ = ["TabularSource"]

SPLITS = ("train", "validation", "test", "calibration")


class TabularSource(NamedColumnsSource):
    """See the module."""

    format = "tabular"

    def __init__(self, path: Path, columns: TabularColumns) -> None:
        """See RowSource."""
        self.directory, self.columns, self.form = (path if path.is_dir() else path.parent), columns, columns.form
        self.name = path.name if path.is_dir() else path.name.partition(".")[0]
        self.files = _files(path)
        self.label_file = record_file(path, "labels") if path.is_dir() else None
        self.splits = tuple(self.files)

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Whether there is a file of a split, or the path is such a file."""
        return bool(_files(path))


def _files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"train": path} if ending_of(path.name) else {}
    return {split: file for split in SPLITS if (file := record_file(path, split))}
