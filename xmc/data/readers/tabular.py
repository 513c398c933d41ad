"""Parquet, CSV and JSONL with named columns: train.*, test.* (and optionally labels.*) in a directory, or one file.

Labels are given by uid: a list column, or a string with a separator; relevances likewise, and rejected labels, which were
judged not relevant. CSV fields are taken as they are written, so that the uid 007 stays 007. With a label table (uid, text)
labels are looked up in it; without one every label that occurs becomes a label whose text is its uid, in sorted order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from xmc.data.readers.filters import FilteredSource
from xmc.data.rows import Defect, Row
from xmc.data.sources import TabularColumns
from xmc.errors import DataError

__all__ = ["TabularSource"]

ENDINGS = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")
SPLITS = ("train", "validation", "test")


class TabularSource(FilteredSource):
    """See the module. A "line" is the 1-based data row, plus one in a CSV file for its header."""

    format = "tabular"

    def __init__(self, path: Path, columns: TabularColumns) -> None:
        """See RowSource."""
        self.directory, self.columns = (path if path.is_dir() else path.parent), columns
        self.name = path.name if path.is_dir() else path.name.partition(".")[0]
        self.files = _files(path)
        self.label_file = _named(path, "labels") if path.is_dir() else None
        self.splits = tuple(self.files)
        self._uids: dict[str, int] = {}

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Whether there is a file of a split, or the path is such a file."""
        return bool(_files(path))

    def labels(self) -> Iterator[Row | Defect]:
        """The label table, or the labels that occur, sorted."""
        self._uids = {}
        if self.label_file is not None:
            for line, values in _records(self.label_file):
                uid = str(_need(values, self.columns.uid, self.label_file))
                self._uids.setdefault(uid, len(self._uids))
                yield Row(self.label_file, line, uid, _text(values.get(self.columns.text)), [])
            return
        occurring: dict[str, tuple[Path, int]] = {}
        for file in self.files.values():
            for line, values in _records(file):
                for uid in (*self._labels_of(values, file), *self._rejected_of(values)):
                    occurring.setdefault(uid, (file, line))
        for uid in sorted(occurring):
            self._uids[uid] = len(self._uids)
            yield Row(*occurring[uid], uid, uid, [])

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """The rows of a split; call `labels` first."""
        file = self.files[split]
        for row, (line, values) in enumerate(_records(file)):
            uid = _text(values[self.columns.uid]) if self.columns.uid in values else str(row)
            named, rejected = self._labels_of(values, file), self._rejected_of(values)
            unknown = [label for label in (*named, *rejected) if label not in self._uids]
            if unknown:
                message = f"the label {unknown[0]!r} is not in {self.label_file}."
                yield Defect("error", file, line, "unknown label", message, row_lost=True)
                continue
            try:
                relevance = [float(value) for value in self._items(values.get(self.columns.relevance))]
            except (TypeError, ValueError) as error:
                yield Defect(
                    "error", file, line, "bad relevance", f"a relevance is no number ({error}).", row_lost=True
                )
                continue
            yield Row(
                file,
                line,
                uid,
                _text(_need(values, self.columns.text, file)),
                [self._uids[label] for label in named],
                relevance or None,
                [self._uids[label] for label in rejected],
            )

    def _labels_of(self, values: dict[str, Any], file: Path) -> list[str]:
        return [str(label) for label in self._items(_need(values, self.columns.labels, file))]

    def _rejected_of(self, values: dict[str, Any]) -> list[str]:
        return [str(label) for label in self._items(values.get(self.columns.rejected))]

    def _items(self, given: Any) -> list[Any]:
        """The items of a list, of a separated string, or the one value there is."""
        if given is None:
            return []
        if isinstance(given, str):
            return [item.strip() for item in given.split(self.columns.separator) if item.strip()]
        return given if isinstance(given, list) else [given]


def _records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, values) of each row, read in batches."""
    line = 1 if file.name.endswith((".csv", ".csv.gz")) else 0
    try:
        for batch in _batches(file):
            for values in batch.to_pylist():
                line += 1
                yield line, values
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read past row {line}: {error}") from error


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    if file.name.endswith(".parquet"):
        yield from pq.ParquetFile(file).iter_batches(8192)
    elif ".csv" in file.name:
        with pa.input_stream(str(file)) as stream, pa_csv.open_csv(stream) as reader:
            names = reader.schema.names
        if twice := [name for name in names if names.count(name) > 1]:
            raise DataError(f"{file} has the column {twice[0]!r} more than once; rename one of them.")
        types = dict.fromkeys(names, pa.string())
        options = pa_csv.ConvertOptions(column_types=types)
        with pa.input_stream(str(file)) as stream, pa_csv.open_csv(stream, convert_options=options) as reader:
            yield from reader
    else:
        with pa.input_stream(str(file)) as stream, pa_json.open_json(stream) as reader:
            yield from reader


def _files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"train": path} if path.name.endswith(ENDINGS) else {}
    return {split: file for split in SPLITS if (file := _named(path, split))}


def _named(directory: Path, stem: str) -> Path | None:
    return next((directory / f"{stem}{end}" for end in ENDINGS if (directory / f"{stem}{end}").is_file()), None)


def _need(values: dict[str, Any], column: str, file: Path) -> Any:
    if column not in values:
        raise DataError(f"{file} has no column {column!r}, only {', '.join(values)}; name the right one.")
    return values[column]


def _text(value: Any) -> str:
    return "" if value is None else str(value)
