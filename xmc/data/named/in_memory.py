"""Tables in memory as a source: the rules of files of records, for what pandas, Polars, DuckDB and others hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from xmc.data.files import RecordFile, WantedColumn
from xmc.data.files.columnar import columns_of_table
from xmc.data.named.columns import NamedColumnsSource
from xmc.data.rows import Defect
from xmc.data.sources import TabularColumns

__all__ = ["TablesSource"]


class TablesSource(NamedColumnsSource):
    """See the module. Defects name the table, by its split, and the row, from 1."""

    format = "arrow"

    def __init__(
        self, tables: Mapping[str, pa.Table], label_table: pa.Table | None, columns: TabularColumns, name: str
    ) -> None:
        """tables: queries by split. label_table: with a column of uids and one of texts; None for the labels that occur."""
        self.columns, self.form, self.name = columns, columns.form, name
        self.files = {split: Path(f"table {split}") for split in tables}
        self.label_file = None if label_table is None else Path("label table")
        self.splits = tuple(tables)
        self._tables = {self.files[split]: table for split, table in tables.items()}
        if label_table is not None:
            self._tables[Path("label table")] = label_table

    @classmethod
    def fits(cls, path: Path) -> bool:
        """See RowSource: no path does."""
        return False

    def filter(self, split: str) -> Iterator[tuple[Path, int, int, int] | Defect]:
        """See RowSource: there is none."""
        return iter(())

    def _record_file(self, path: Path, wanted: Sequence[WantedColumn]) -> RecordFile:
        """See NamedLabelsSource."""
        return columns_of_table(self._tables[path], wanted, self.form, str(path))
