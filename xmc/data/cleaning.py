"""Labels cleaned while a source is read: lower case, without white space around them, and without rare ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from xmc.data.evidence.source_rows import EvidenceRows, numbered
from xmc.data.images.ragged import RaggedImages
from xmc.data.rows import Defect, Row, checked_row
from xmc.data.sources import RowSource, WrappedSource
from xmc.errors import ConfigError

__all__ = ["CleanedSource", "LabelCleaning"]

TRAIN = "train"


@dataclass(frozen=True)
class LabelCleaning:
    """What is done to labels. A label whose uid is its text has the cleaned text for both, and labels of one uid become one.

    lowercase: texts in lower case. strip: texts without white space around them. min_count: labels with fewer positive queries
    in train are left out, and with them their positives; counted before new splits are drawn.

    Raises ConfigError for a count below 1.
    """

    lowercase: bool = False
    strip: bool = False
    min_count: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.min_count, bool) or not isinstance(self.min_count, int) or self.min_count < 1:
            raise ConfigError(f"min_count must be a whole number of at least 1, but is {self.min_count!r}.")

    def __bool__(self) -> bool:
        """Whether anything is done."""
        return self.lowercase or self.strip or self.min_count > 1

    def __call__(self, text: str) -> str:
        """A text, cleaned."""
        text = text.strip() if self.strip else text
        return text.lower() if self.lowercase else text


class CleanedSource(WrappedSource):
    """A source whose labels are cleaned. Labels that become one, and those left out, are warnings, which are counted."""

    def __init__(self, source: RowSource, cleaning: LabelCleaning) -> None:
        """Raises ConfigError for `min_count` where there is no split train to count in."""
        super().__init__(source)
        self.cleaning = cleaning
        if cleaning.min_count > 1 and TRAIN not in source.splits:
            raise ConfigError(
                "min_count counts the positives of the split train, which there is none of; leave it out."
            )
        self._rows: np.ndarray[Any, np.dtype[np.int64]] = np.zeros(0, np.int64)
        """The new row of each label of the source, -1 for one that is left out."""
        self._kept: list[int] = []
        """The row in the source of each new row."""
        self._renamed: dict[str, str] = {}

    def properties(self) -> dict[str, Any]:
        """Those of the source, and what is done to labels."""
        named = {name: value for name, value in vars(self.cleaning).items() if value is True or value > 1}
        return {**self.source.properties(), "cleaned_labels": named}

    def labels(self) -> Iterator[Row | Defect]:
        """The label table without labels that became others, and rare ones."""
        counts = self._counts() if self.cleaning.min_count > 1 else None
        first: dict[str, int] = {}
        rows: list[int] = []
        self._kept, self._renamed = [], {}
        for item in self.source.labels():
            if isinstance(item, Defect):
                if item.row_lost:
                    self._kept.append(len(rows))
                    rows.append(len(self._kept) - 1)
                yield item
                continue
            cleaned = self._cleaned(item)
            unit = item.unit
            if cleaned.uid in first and item.uid == item.text:
                rows.append(first[cleaned.uid])
                if first[cleaned.uid] >= 0:
                    message = f"the label {item.uid!r} is {cleaned.uid!r} when it is cleaned, as another label is."
                    yield Defect("warning", item.file, item.line, "label joined with another", message, unit=unit)
                continue
            rare = counts is not None and counts.get(cleaned.uid, 0) < self.cleaning.min_count
            row = -1 if rare else len(self._kept)
            first.setdefault(cleaned.uid, row)
            rows.append(row)
            if rare:
                least = self.cleaning.min_count
                message = f"the label {cleaned.uid!r} has fewer than {least} positive queries in train."
                reason = f"label of fewer than {least} queries left out"
                yield Defect("warning", item.file, item.line, reason, message, unit=unit)
                continue
            self._kept.append(len(rows) - 1)
            yield cleaned
        self._rows = np.array(rows, np.int64)

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """The queries of a split with the new rows of their labels, each once, with its greatest relevance."""
        for item in self.source.queries(split, len(self._rows)):
            yield self._moved(item) if isinstance(item, Row) else item

    def label_columns(self) -> pa.Table | None:
        """Those of the first of several labels that became one."""
        columns = self.source.label_columns()
        return None if columns is None else columns.take(pa.array(self._kept, pa.int64()))

    def images(self, name: str) -> RaggedImages | None:
        """Those of the first of several labels that became one."""
        images = self.source.images(name)
        return images if images is None or name != "labels" else images.take(np.array(self._kept, np.int64))

    def judgements(self, split: str) -> pa.Table | None:
        """With the uids that labels have now."""
        table = self.source.judgements(split)
        if table is None:
            return None
        uids = [self._renamed.get(uid, uid) for uid in table["label"].to_pylist()]
        return table.set_column(table.column_names.index("label"), "label", pa.array(uids, pa.string()))

    def filter(self, split: str) -> Iterator[tuple[Path, int, int, int] | Defect]:
        """With the rows that labels have now, without those left out."""
        for item in self.source.filter(split):
            if isinstance(item, Defect) or not 0 <= item[3] < len(self._rows):
                yield item
            elif self._rows[item[3]] >= 0:
                yield (*item[:3], int(self._rows[item[3]]))

    def evidence(self, kind: str, split: str, queries: int) -> EvidenceRows:
        """With the rows that labels have now, see xmc.data.evidence.rows.Evidence.renumbered."""
        rows = self.source.evidence(kind, split, queries)
        found = rows.checked(queries, len(self._rows))
        table = found.evidence.renumbered(np.arange(queries), self._rows).table()
        return EvidenceRows(kind, rows.file, rows.unit, numbered(len(table)), table, found.defects)

    def _cleaned(self, label: Row) -> Row:
        text = self.cleaning(label.text)
        uid = text if label.uid == label.text else label.uid
        if uid != label.uid:
            self._renamed[label.uid] = uid
        return replace(label, uid=uid, text=text)

    def _moved(self, row: Row) -> Row | Defect:
        checked, defects = checked_row(row, len(self._rows))
        if checked is None:
            return replace(next(defect for defect in defects if defect.severity == "error"), row_lost=True)
        relevance: dict[int, float] = {}
        for label, value in zip(checked.labels, checked.relevance or [1.0] * len(checked.labels), strict=True):
            moved = int(self._rows[label])
            relevance[moved] = max(value, relevance.get(moved, value))
        relevance.pop(-1, None)
        rejected = sorted({int(self._rows[label]) for label in checked.rejected} - {-1})
        values = None if checked.relevance is None else list(relevance.values())
        return replace(checked, labels=list(relevance), relevance=values, rejected=rejected)

    def _counts(self) -> dict[str, int]:
        """Number of positive queries in train of each label, by its uid when it is cleaned."""
        uids = [
            self._cleaned(item).uid if isinstance(item, Row) else ""
            for item in self.source.labels()
            if isinstance(item, Row) or item.row_lost
        ]
        counts: dict[str, int] = {}
        for item in self.source.queries(TRAIN, len(uids)):
            checked = checked_row(item, len(uids))[0] if isinstance(item, Row) else None
            for uid in {uids[label] for label, _ in checked.positives} if checked is not None else ():
                counts[uid] = counts.get(uid, 0) + 1
        return counts
