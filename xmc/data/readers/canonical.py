"""A canonical directory as a source, so that it can be validated and converted like any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from xmc.data.dataset import Dataset
from xmc.data.evidence import EVIDENCE
from xmc.data.evidence.source_rows import EvidenceRows, numbered
from xmc.data.images.ragged import RaggedImages
from xmc.data.judgements import JUDGED_SCHEMA
from xmc.data.rows import Defect, Row
from xmc.data.sources import RowSource, TabularColumns
from xmc.data.tables import GROUP, GROUPED_SCHEMA, LABEL_SCHEMA, OPTIONAL, read_table
from xmc.errors import DataError, boundary
from xmc.storage.arrow import column_names, read_batches

__all__ = ["CanonicalSource"]


class CanonicalSource(RowSource):
    """See the module. A "line" is the 1-based row of the Parquet file."""

    format = "canonical"
    filter_unit = "row"

    def __init__(self, path: Path, columns: TabularColumns) -> None:
        """See RowSource."""
        self.directory = path
        self.dataset = Dataset.load(path)
        self.name, self.splits = self.dataset.name, self.dataset.splits

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Whether there is a dataset.json."""
        return (path / "dataset.json").is_file()

    @property
    def has_groups(self) -> bool:
        """Whether the queries of a split have a column of groups."""
        files = (self.directory / f"queries-{split}.parquet" for split in self.splits)
        return any(file.is_file() and GROUP in _names(file) for file in files)

    def properties(self) -> dict[str, Any]:
        """The names of the columns that the data set had where it was first converted from, if they are known."""
        return {"columns": self.dataset.source_columns} if self.dataset.source_columns else {}

    def labels(self) -> Iterator[Row | Defect]:
        """labels.parquet."""
        file = self.dataset.listing.require("labels.parquet")
        line = 0
        for line, values in enumerate(_records(file, LABEL_SCHEMA), 1):
            yield Row(file, line, str(values["uid"]), values["text"] or "", [], unit="row")
        yield from self._count("labels", line, self.dataset.properties.get("labels"))

    def label_columns(self) -> pa.Table | None:
        """The columns of labels.parquet besides uid and text."""
        return self.dataset.labels.columns

    def images(self, name: str) -> RaggedImages | None:
        """images-NAME.arrow."""
        return self.dataset.images(name)

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """queries-SPLIT.parquet."""
        file = self.dataset.listing.require(f"queries-{split}.parquet")
        line = 0
        for line, values in enumerate(_records(file, GROUPED_SCHEMA), 1):
            labels_of_query, relevance, rejected, labelled = (values.get(name) for name in ("labels", *OPTIONAL))
            uid, text = str(values["uid"]), values["text"] or ""
            further = values.get(GROUP), labelled is not False
            yield Row(file, line, uid, text, labels_of_query or [], relevance, rejected or [], "row", *further)
        yield from self._count(f"queries-{split}", line, self.dataset.properties["splits"][split])

    def filter(self, split: str) -> Iterator[tuple[Path, int, int, int] | Defect]:
        """filter-SPLIT.parquet."""
        for line, (query, label) in enumerate(self.dataset.filter(split).tolist(), 1):
            yield self.directory / f"filter-{split}.parquet", line, query, label

    def judgements(self, split: str) -> pa.Table | None:
        """judged-SPLIT.parquet; DataError where it does not fit."""
        if self.dataset.judgements(split) is None:
            return None
        return read_table(self.directory / f"judged-{split}.parquet", JUDGED_SCHEMA)

    def evidence_kinds(self, split: str) -> tuple[str, ...]:
        """Those that there are files of."""
        return tuple(kind for kind in EVIDENCE if (self.directory / f"{kind}-{split}.parquet").is_file())

    def evidence(self, kind: str, split: str, queries: int) -> EvidenceRows:
        """KIND-SPLIT.parquet."""
        file = self.dataset.listing.require(f"{kind}-{split}.parquet")
        table = read_table(file, EVIDENCE[kind].schema)
        return EvidenceRows(kind, file, "row", numbered(len(table)), table)

    def _count(self, stem: str, rows: int, said: int | None) -> Iterator[Defect]:
        if said is not None and rows != said:
            message = f"it says {said} rows of {stem}, but there are {rows}."
            yield Defect("error", self.directory / "dataset.json", 1, "header disagrees", message)


def _names(file: Path) -> list[str]:
    """The names of the columns of a Parquet file; none of one that cannot be read, as is said when its rows are."""
    try:
        return column_names(file, kind=DataError)
    except DataError:
        return []


def _records(file: Path, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Rows with the columns of `schema`; those of OPTIONAL may be missing."""
    what = f"{file} cannot be read as {', '.join(schema.names)}"
    names = column_names(file, kind=DataError, what=what)
    if missing := [name for name in schema.names if name not in [*names, *OPTIONAL, GROUP]]:
        raise DataError(f"{file} has no column {missing[0]!r}, only {', '.join(names)}.")
    wanted = pa.schema([field for field in schema if field.name in names])
    for batch in read_batches(file, 8192, wanted.names, kind=DataError, what=what):
        with boundary(DataError, what):
            rows = pa.Table.from_batches([batch]).cast(wanted).to_pylist()
        yield from rows
