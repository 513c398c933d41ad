"""The common part of layouts whose queries name their labels by uid: a label table, or the labels that occur."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from xmc.data.files import LINE, MESSAGE, REASON, RecordFile, WantedColumn, open_file
from xmc.data.files.addresses import ending_of
from xmc.data.named.filters import FilteredSource
from xmc.data.named.separators import hint
from xmc.data.rows import Defect, Row
from xmc.data.sources import TabularColumns
from xmc.errors import DataError

__all__ = ["NamedLabelsSource", "NamedRow", "record_file"]


@dataclass(frozen=True)
class NamedRow:
    """A query whose labels, and rejected labels, are uids; otherwise as xmc.data.rows.Row."""

    file: Path
    line: int
    uid: str
    text: str
    labels: list[str]
    relevance: list[float] | None = None
    rejected: list[str] = field(default_factory=list)
    unit: Literal["line", "row"] = "line"
    group: str | None = None
    labelled: bool = True


class NamedLabelsSource(FilteredSource):
    """See the module. Without a label table every label that occurs is one, whose text is its uid, in sorted order."""

    label_file: Path | None
    """The label table; None without one."""
    unknown_label: ClassVar[Literal["error", "warning"]] = "error"
    """What a label that is not in the table is: an error loses the query, a warning that label."""
    _rows: dict[str, int]
    """The row of each label by its uid."""

    columns: TabularColumns

    def _table(self, file: Path) -> Iterator[Row | Defect]:
        """The rows of the label table, by default a file of records with a column of uids and one of texts."""
        names = self.columns
        wanted = [
            WantedColumn(names.label_uid, "uid", key="uid", option="--label-uid-column"),
            WantedColumn(names.label_text, "text", key="text", option="--label-text-column"),
        ]
        table = self._record_file(file, wanted)
        for batch in table.batches():
            for values in batch.to_pylist():
                if values[REASON] is not None or values["uid"] is None:
                    reason, message = values[REASON] or "null uid", values[MESSAGE] or "the label has no uid."
                    yield Defect("error", file, values[LINE], reason, message, True, table.unit)
                else:
                    yield Row(file, values[LINE], values["uid"], values["text"] or "", [], unit=table.unit)

    def _record_file(self, path: Path, wanted: Sequence[WantedColumn]) -> RecordFile:
        """A file of records; DataError for one that cannot be read, and for columns that lack or do not fit."""
        return open_file(path, wanted, self.form)

    @abstractmethod
    def _queries(self, split: str, texts: bool) -> Iterator[NamedRow | Defect]:
        """The queries of a split. texts: False where labels alone are needed."""

    def labels(self) -> Iterator[Row | Defect]:
        """The label table, or the labels that occur."""
        self._rows = {}
        row = 0
        for item in self._occurring() if self.label_file is None else self._table(self.label_file):
            if isinstance(item, Row):
                self._rows.setdefault(item.uid, row)
            row += isinstance(item, Row) or item.row_lost
            yield item

    def _occurring(self) -> Iterator[Row]:
        first: dict[str, tuple[Path, int, Literal["line", "row"]]] = {}
        for split in self.splits:
            for query in self._queries(split, texts=False):
                if isinstance(query, NamedRow):
                    for uid in (*query.labels, *query.rejected):
                        first.setdefault(uid, (query.file, query.line, query.unit))
        for uid in sorted(first):
            file, line, unit = first[uid]
            yield Row(file, line, uid, uid, [], unit=unit)

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """The queries of a split; call `labels` first."""
        for item in self._queries(split, texts=True):
            if isinstance(item, Defect):
                yield item
                continue
            unknown = [label for label in (*item.labels, *item.rejected) if label not in self._rows]
            if unknown:
                message = f"the label {unknown[0]!r} is not in {self.label_file}.{hint(unknown[0], self._rows)}"
                lost = self.unknown_label == "error"
                yield Defect(self.unknown_label, item.file, item.line, "unknown label", message, lost, item.unit)
                if lost:
                    continue
            yield self._row(item)

    def _row(self, query: NamedRow) -> Row:
        """A query with the rows of its labels, without unknown ones."""
        relevance = query.relevance
        if relevance is not None and len(relevance) == len(query.labels):
            pairs = zip(query.labels, relevance, strict=True)
            relevance = [value for label, value in pairs if label in self._rows]
        known = [self._rows[label] for label in query.labels if label in self._rows]
        rejected = [self._rows[label] for label in query.rejected if label in self._rows]
        further = query.unit, query.group, query.labelled
        return Row(query.file, query.line, query.uid, query.text, known, relevance, rejected, *further)


def record_file(directory: Path, stem: str) -> Path | None:
    """The file of records with this stem in a directory. Raises DataError where there are more."""
    files = sorted(file for file in directory.glob(f"{stem}.*") if file.is_file() and ending_of(file.name))
    if len(files) > 1:
        names = " and ".join(file.name for file in files)
        raise DataError(f"{directory} holds {names}, and one of them must be {stem}; leave one there.")
    return files[0] if files else None
