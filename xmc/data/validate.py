"""Every defect of a data set, with file and line."""

from __future__ import annotations

from collections.abc import Iterator

from xmc.data.checks import checked_filter, checked_rows
from xmc.data.rows import Defect
from xmc.data.sources import RowSource
from xmc.progress import progress

__all__ = ["validate"]


def validate(source: RowSource) -> Iterator[Defect]:
    """Yield the defects of a source as they are found, labels first, in one pass over each file.

    Raises DataError when a file cannot be read at all, for example a gzip file that ends early, and at the end, for the first
    judgement that does not fit.
    """
    with progress("checking labels", unit="rows") as line:
        labels = 0
        for rows, defects in checked_rows(source, None, 0):
            labels += len(rows)
            line.advance(len(rows))
            yield from defects
        for split in source.splits:
            line.describe(f"checking labels and queries, now {split}")
            queries = 0
            for rows, defects in checked_rows(source, split, labels):
                queries += len(rows)
                line.advance(len(rows))
                yield from defects
            for item in checked_filter(source, split, queries, labels):
                if isinstance(item, Defect):
                    yield item
    for split in source.splits:
        source.judgements(split)
