"""Records with named columns: uid, text, labels, relevance, rejected, labelled.

Labels are given by uid: a list, or a string that a separator cuts; relevances likewise, and rejected labels, which were judged
not relevant. With a label table (uid, text) labels are looked up in it; without one every label that occurs becomes a label
whose text is its uid, in sorted order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xmc.data.files import LINE, MESSAGE, REASON, REMARK, RecordFile, WantedColumn
from xmc.data.named.labels import NamedLabelsSource, NamedRow
from xmc.data.named.separators import UncutCells
from xmc.data.rows import Defect
from xmc.data.tables import GROUP

__all__ = ["NamedColumnsSource"]


class NamedColumnsSource(NamedLabelsSource):
    """See the module."""

    files: Mapping[str, Path]
    """The records of each split."""

    def properties(self) -> dict[str, Any]:
        """The names of the columns."""
        return {"columns": self.columns.named}

    @property
    def has_groups(self) -> bool:
        """Whether a column of groups is named."""
        return self.columns.group is not None

    def _queries(self, split: str, texts: bool) -> Iterator[NamedRow | Defect]:
        """See NamedLabelsSource."""
        path = self.files[split]
        file = self._record_file(path, self._wanted(texts=True))  # what lacks is told before the labels are read
        if not texts:
            file = self._record_file(path, self._wanted(texts=False))
        numbered = not texts or not file.has(self.columns.uid or "uid")
        uncut = UncutCells()
        for row, values in enumerate(_records(file)):
            line = values[LINE]
            if values[REASON] is not None:
                yield Defect("error", path, line, values[REASON], values[MESSAGE], True, file.unit)
                continue
            uid = str(row) if numbered else values["uid"]
            if uid is None:
                yield Defect("error", path, line, "null uid", "the row has no uid.", True, file.unit)
                continue
            labels, rejected = values["labels"] or [], values["rejected"] or []
            uncut.add(labels, line)
            if (remark := values[REMARK]) is not None and texts:
                message = f"a {remark}: read as one row, which is right unless a quote in it is missing."
                yield Defect("warning", path, line, remark, message, unit=file.unit)
            text, relevance = values.get("text") or "", values.get("relevance")
            further = file.unit, values.get(GROUP), values.get("labelled") is not False
            yield NamedRow(path, line, uid, text, labels, relevance, rejected, *further)
        if (defect := uncut.remark(path, file.unit)) is not None:
            yield defect

    def _wanted(self, texts: bool) -> list[WantedColumn]:
        """What is asked of a split's file; a column that was named must be there, one of a usual name may."""
        names = self.columns
        wanted = [
            WantedColumn(names.labels, "labels", key="labels", option="--labels-column"),
            WantedColumn(
                names.rejected or "rejected", "labels", names.rejected is not None, "rejected", "--rejected-column"
            ),
        ]
        if texts:
            wanted += [
                WantedColumn(names.uid or "uid", "uid", names.uid is not None, "uid", "--uid-column"),
                WantedColumn(names.text, "text", key="text", option="--text-column"),
                WantedColumn(
                    names.relevance or "relevance",
                    "relevance",
                    names.relevance is not None,
                    "relevance",
                    "--relevance-column",
                ),
            ]
            named = names.labelled is not None
            wanted.append(WantedColumn(names.labelled or "labelled", "flag", named, "labelled", "--labelled-column"))
            if names.group is not None:
                wanted.append(WantedColumn(names.group, "text", key=GROUP, option="--group"))
        return wanted


def _records(file: RecordFile) -> Iterator[dict[str, Any]]:
    """The rows of a file."""
    for batch in file.batches():
        yield from batch.to_pylist()
