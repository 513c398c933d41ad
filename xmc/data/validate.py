"""Every defect of a data set, with file and line."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from xmc.data.checks import checked_filter, checked_rows
from xmc.data.evidence.contradictions import contradictions
from xmc.data.evidence.source_rows import EvidenceRows
from xmc.data.rows import Defect, Row
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
            queries, kinds, said = 0, source.evidence_kinds(split), _Judged()
            for rows, defects in checked_rows(source, split, labels):
                queries += len(rows)
                line.advance(len(rows))
                yield from defects
                if kinds:
                    said.add(rows)
            for kind in kinds:
                yield from _of_evidence(source.evidence(kind, split, queries), queries, labels, said)
            for item in checked_filter(source, split, queries, labels):
                if isinstance(item, Defect):
                    yield item
    for split in source.splits:
        source.judgements(split)


class _Judged:
    """The labels of the queries of a split, as evidence is held against them."""

    def __init__(self) -> None:
        self._positives: list[npt.NDArray[np.int64]] = []
        self._rejected: list[npt.NDArray[np.int64]] = []

    def add(self, rows: list[Row | None]) -> None:
        """Add queries; those that cannot be used have no labels."""
        for row in rows:
            self._positives.append(np.array([] if row is None else [label for label, _ in row.positives], np.int64))
            self._rejected.append(np.array([] if row is None else row.all_rejected, np.int64))

    def matrices(self, labels: int) -> tuple[csr_matrix, csr_matrix]:
        """The positives and the rejected pairs, CSR bool [n, labels]."""
        return _matrix(self._positives, labels), _matrix(self._rejected, labels)


def _matrix(lists: list[npt.NDArray[np.int64]], labels: int) -> csr_matrix:
    indices = np.concatenate([np.zeros(0, np.int64), *lists])
    indptr = np.concatenate([[0], np.cumsum([len(rows) for rows in lists])]).astype(np.int64)
    matrix = csr_matrix((np.ones(len(indices), bool), indices, indptr), shape=(len(lists), labels))
    matrix.sort_indices()
    return matrix


def _of_evidence(rows: EvidenceRows, queries: int, labels: int, said: _Judged) -> Iterator[Defect]:
    """The defects of evidence of one kind, and what contradicts the labels, as warnings."""
    found = rows.checked(queries, labels)
    yield from found.defects
    for row, reason, message in contradictions(found.evidence, *said.matrices(labels), rows.names):
        yield Defect("warning", rows.file, int(found.lines[row]), reason, message, unit=rows.unit)
