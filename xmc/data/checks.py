"""One pass over a source that yields good rows and defects: what conversion and validation share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from xmc.data.rows import Defect, Row, checked_row
from xmc.data.sources import RowSource

__all__ = ["BATCH", "checked_filter", "checked_rows"]

BATCH = 8192


class _Seen:
    """Strings met so far, as sorted 64-bit hashes of 8 bytes each."""

    def __init__(self) -> None:
        self.hashes: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def again(self, texts: list[str]) -> npt.NDArray[np.bool_]:
        """Which of these were met before, in earlier calls or in this one; bool [n]."""
        fresh = np.array([hash(text) for text in texts], np.int64)
        places = np.searchsorted(self.hashes, fresh)
        again = places < len(self.hashes)
        again[again] = self.hashes[places[again]] == fresh[again]
        first = np.zeros(len(fresh), bool)
        first[np.unique(fresh, return_index=True)[1]] = True
        self.hashes = np.sort(np.concatenate([self.hashes, fresh[first & ~again]]), kind="stable")
        return again | ~first


def checked_rows(source: RowSource, split: str | None, labels: int) -> Iterator[tuple[list[Row | None], list[Defect]]]:
    """Batches of the rows of a split (None: of the label table), and of the defects found in them.

    A row stands as None where it cannot be used, so that positions stay those of the source.
    """
    items = source.labels() if split is None else source.queries(split, labels)
    seen, texts = _Seen(), _Seen() if split is None else None
    rows: list[Row | None] = []
    defects: list[Defect] = []
    for item in items:
        if isinstance(item, Defect):
            defects.append(item)
            if item.row_lost:
                rows.append(None)
        else:
            row, of_row = checked_row(item, None if split is None else labels)
            defects.extend(of_row)
            rows.append(row)
        if len(rows) >= BATCH:
            yield _without_duplicates(source, seen, texts, rows, defects)
            rows, defects = [], []
    if rows or defects:
        yield _without_duplicates(source, seen, texts, rows, defects)


def _without_duplicates(
    source: RowSource, uids: _Seen, texts: _Seen | None, rows: list[Row | None], defects: list[Defect]
) -> tuple[list[Row | None], list[Defect]]:
    """The rows without those of a uid met before, and with these defects, warnings of label texts met before."""
    kept, found = list(rows), list(defects)
    if source.has_uids:
        for place in _met(uids, [(place, row.uid) for place, row in enumerate(rows) if row is not None]):
            found.append(_of(rows[place], "error", "duplicate uid", "the uid {row.uid!r} stands a second time."))
            kept[place] = None
    if texts is not None:
        for place in _met(texts, [(place, row.text) for place, row in enumerate(kept) if row is not None and row.text]):
            message = "the text {row.text!r} of the label {row.uid!r} is that of an earlier label too."
            found.append(_of(rows[place], "warning", "label text that another label has", message))
    return kept, found


def _met(seen: _Seen, named: list[tuple[int, str]]) -> list[int]:
    """The places of the strings that were met before."""
    again = seen.again([text for _, text in named])
    return [place for (place, _), twice in zip(named, again, strict=True) if twice]


def _of(row: Row | None, severity: Literal["error", "warning"], reason: str, message: str) -> Defect:
    assert row is not None
    return Defect(severity, row.file, row.line, reason, message.format(row=row), unit=row.unit)


def checked_filter(source: RowSource, split: str, queries: int, labels: int) -> Iterator[tuple[int, int] | Defect]:
    """The filter pairs of a split, in the source's row numbers, and their defects."""
    for item in source.filter(split):
        if isinstance(item, Defect):
            yield item
            continue
        file, line, query, label = item
        if 0 <= query < queries and 0 <= label < labels:
            yield query, label
        else:
            pair = f"query {query} of {queries}" if not 0 <= query < queries else f"label {label} of {labels}"
            message = f"{pair} is out of range (0-based)."
            yield Defect("error", file, line, "filter row out of range", message, True, source.filter_unit)
