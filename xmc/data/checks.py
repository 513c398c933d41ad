"""One pass over a source that yields good rows and defects: what conversion and validation share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from xmc.data.rows import Defect, Row, checked_row
from xmc.data.sources import RowSource

__all__ = ["BATCH", "checked_filter", "checked_rows"]

BATCH = 8192


class _Seen:
    """Uids met so far, as sorted 64-bit hashes of 8 bytes each."""

    def __init__(self) -> None:
        self.hashes: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def duplicates(self, rows: list[Row]) -> list[Defect]:
        """Rows whose uid was met before, in earlier batches or in this one."""
        fresh = np.array([hash(row.uid) for row in rows], np.int64)
        places = np.searchsorted(self.hashes, fresh)
        again = places < len(self.hashes)
        again[again] = self.hashes[places[again]] == fresh[again]
        first = np.zeros(len(fresh), bool)
        first[np.unique(fresh, return_index=True)[1]] = True
        self.hashes = np.sort(np.concatenate([self.hashes, fresh[first & ~again]]), kind="stable")
        return [
            Defect(
                "error",
                row.file,
                row.line,
                "duplicate uid",
                f"the uid {row.uid!r} stands a second time.",
                unit=row.unit,
            )
            for row, bad in zip(rows, again | ~first, strict=True)
            if bad
        ]


def checked_rows(source: RowSource, split: str | None, labels: int) -> Iterator[tuple[list[Row | None], list[Defect]]]:
    """Batches of the rows of a split (None: of the label table), and of the defects found in them.

    A row stands as None where it cannot be used, so that positions stay those of the source.
    """
    items = source.labels() if split is None else source.queries(split, labels)
    seen = _Seen()
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
            yield _without_duplicates(source, seen, rows, defects)
            rows, defects = [], []
    if rows or defects:
        yield _without_duplicates(source, seen, rows, defects)


def _without_duplicates(
    source: RowSource, seen: _Seen, rows: list[Row | None], defects: list[Defect]
) -> tuple[list[Row | None], list[Defect]]:
    if not source.has_uids:
        return rows, defects
    twice = seen.duplicates([row for row in rows if row is not None])
    lost = {(defect.file, defect.line) for defect in twice}
    kept = [None if row is not None and (row.file, row.line) in lost else row for row in rows]
    return kept, defects + twice


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
