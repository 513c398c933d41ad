"""Files of records, such as Parquet, CSV and JSON lines: train.*, test.* (and optionally labels.*) in a directory, or one file.

Labels are given by uid: a list, or a string that a separator cuts; relevances likewise, and rejected labels, which were judged
not relevant. With a label table (uid, text) labels are looked up in it; without one every label that occurs becomes a label
whose text is its uid, in sorted order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmc.data.files import LINE, MESSAGE, REASON, RecordFile, WantedColumn, open_file
from xmc.data.files.addresses import ending_of
from xmc.data.readers.filters import FilteredSource
from xmc.data.rows import Defect, Row
from xmc.data.sources import TabularColumns

__all__ = ["TabularSource"]

SPLITS = ("train", "validation", "test", "calibration")


class TabularSource(FilteredSource):
    """See the module."""

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

    def properties(self) -> dict[str, Any]:
        """The names of the columns."""
        return {"columns": self.columns.named}

    def labels(self) -> Iterator[Row | Defect]:
        """The label table, or the labels that occur, sorted."""
        self._uids = {}
        if self.label_file is not None:
            yield from self._label_table(self.label_file)
            return
        occurring: dict[str, tuple[Path, int]] = {}
        for file in self.files.values():
            for values in _records(self._open(file, texts=False)):
                for uid in (*(values["labels"] or ()), *(values["rejected"] or ())):
                    occurring.setdefault(uid, (file, values[LINE]))
        for uid in sorted(occurring):
            self._uids[uid] = len(self._uids)
            yield Row(*occurring[uid], uid, uid, [])

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """The rows of a split; call `labels` first."""
        path = self.files[split]
        file = self._open(path, texts=True)
        numbered = not file.has(self.columns.uid or "uid")
        for row, values in enumerate(_records(file)):
            if values[REASON] is not None:
                yield Defect("error", path, values[LINE], values[REASON], values[MESSAGE], True, file.unit)
                continue
            uid = str(row) if numbered else values["uid"]
            if uid is None:
                yield Defect("error", path, values[LINE], "null uid", "the row has no uid.", True, file.unit)
                continue
            named, rejected = values["labels"] or [], values["rejected"] or []
            unknown = next((label for label in (*named, *rejected) if label not in self._uids), None)
            if unknown is not None:
                message = f"the label {unknown!r} is not in {self.label_file}."
                yield Defect("error", path, values[LINE], "unknown label", message, True, file.unit)
                continue
            yield Row(
                path,
                values[LINE],
                uid,
                values["text"] or "",
                [self._uids[label] for label in named],
                values["relevance"],
                [self._uids[label] for label in rejected],
                file.unit,
            )

    def _label_table(self, path: Path) -> Iterator[Row | Defect]:
        names = self.columns
        wanted = [WantedColumn(names.label_uid, "uid", key="uid"), WantedColumn(names.label_text, "text", key="text")]
        file = open_file(path, wanted, names.form)
        for row, values in enumerate(_records(file)):
            if values[REASON] is not None or values["uid"] is None:
                reason, message = values[REASON] or "null uid", values[MESSAGE] or "the label has no uid."
                yield Defect("error", path, values[LINE], reason, message, True, file.unit)
                continue
            self._uids.setdefault(values["uid"], row)
            yield Row(path, values[LINE], values["uid"], values["text"] or "", [], unit=file.unit)

    def _open(self, path: Path, texts: bool) -> RecordFile:
        """A split's file; a column that was named must be there, one of a usual name may."""
        names = self.columns
        wanted = [
            WantedColumn(names.labels, "labels", key="labels"),
            WantedColumn(names.rejected or "rejected", "labels", names.rejected is not None, "rejected"),
        ]
        if texts:
            wanted += [
                WantedColumn(names.uid or "uid", "uid", names.uid is not None, "uid"),
                WantedColumn(names.text, "text", key="text"),
                WantedColumn(names.relevance or "relevance", "relevance", names.relevance is not None, "relevance"),
            ]
        return open_file(path, wanted, names.form)


def _records(file: RecordFile) -> Iterator[dict[str, Any]]:
    """The rows of a file."""
    for batch in file.batches():
        yield from batch.to_pylist()


def _files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"train": path} if ending_of(path.name) else {}
    return {split: file for split in SPLITS if (file := _named(path, split))}


def _named(directory: Path, stem: str) -> Path | None:
    """The file of records with this stem in a directory."""
    names = sorted(file for file in directory.glob(f"{stem}.*") if file.is_file())
    return next((file for file in names if ending_of(file.name) and file.name == stem + file.name[len(stem) :]), None)
