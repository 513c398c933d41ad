"""A canonical directory as a source, so that it can be validated and converted like any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xmc.data.dataset import Dataset
from xmc.data.rows import Defect, Row, Source
from xmc.errors import DataError

__all__ = ["CanonicalSource"]


class CanonicalSource(Source):
    """See the module. A "line" is the 1-based row of the Parquet file."""

    format = "canonical"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.dataset = Dataset.load(directory)
        self.name, self.splits = self.dataset.name, self.dataset.splits

    @staticmethod
    def fits(directory: Path) -> bool:
        """Whether there is a dataset.json."""
        return (directory / "dataset.json").is_file()

    def labels(self) -> Iterator[Row | Defect]:
        """labels.parquet."""
        file = self.directory / "labels.parquet"
        line = 0
        for line, values in enumerate(_records(file), 1):
            yield Row(file, line, str(values["uid"]), values["text"] or "", [])
        yield from self._count("labels", line, self.dataset.properties.get("labels"))

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """queries-SPLIT.parquet."""
        file = self.directory / f"queries-{split}.parquet"
        line = 0
        for line, values in enumerate(_records(file), 1):
            yield Row(
                file, line, str(values["uid"]), values["text"] or "", values["labels"] or [], values.get("relevance")
            )
        yield from self._count(f"queries-{split}", line, self.dataset.properties["splits"][split])

    def filter(self, split: str) -> Iterator[tuple[Path, int, int, int] | Defect]:
        """filter-SPLIT.parquet."""
        for line, (query, label) in enumerate(self.dataset.filter(split).tolist(), 1):
            yield self.directory / f"filter-{split}.parquet", line, query, label

    def _count(self, stem: str, found: int, said: int | None) -> Iterator[Defect]:
        if said is not None and found != said:
            message = f"it says {said} rows of {stem}, but there are {found}."
            yield Defect("error", self.directory / "dataset.json", 1, "header disagrees", message)


def _records(file: Path) -> Iterator[dict[str, Any]]:
    try:
        for batch in pq.ParquetFile(file).iter_batches(8192):
            yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read as Parquet: {error}") from error
