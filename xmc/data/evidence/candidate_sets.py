"""Candidate sets: labels of a query, and how many of them are true; partial-label learning calls them so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xmc.arrays import Rows, places_of
from xmc.data.evidence.rows import ANY, BY_ROW, Evidence, RowNames, RowProblems, lists_of, masked_lists, table_of_rows

__all__ = ["CandidateSets"]

Counts = npt.NDArray[np.int32]


@dataclass(frozen=True)
class CandidateSets(Evidence):
    """m sets of labels, sorted by query: between `least` and `most` of the labels of a set are true of its query.

    queries: rows of the split, int64 [m], ascending; a query may have several sets. indptr: int64 [m + 1]. labels: int64 [nnz],
    set i has those from indptr[i] to indptr[i + 1], ascending, each once. least, most: int32 [m], 0 <= least <= most <= size.
    Partial-label learning (Cour, Sapp & Taskar, JMLR 2011) has sets with exactly one true label.

    >>> sets = CandidateSets.from_lists([3], [[7, 2]], [1], [1])
    >>> sets.queries.tolist(), sets.labels.tolist(), sets.most.tolist()
    ([3], [2, 7], [1])
    """

    queries: Rows
    indptr: Rows
    labels: Rows
    least: Counts
    most: Counts

    kind: ClassVar[str] = "sets"
    schema: ClassVar[pa.Schema] = pa.schema(
        [("query", pa.int32()), ("labels", pa.list_(pa.int32())), ("least", pa.int32()), ("most", pa.int32())]
    )

    @classmethod
    def from_lists(
        cls, queries: Sequence[int] | Rows, labels: Sequence[Any], least: Sequence[int], most: Sequence[int]
    ) -> CandidateSets:
        """From a query, a list of labels and two numbers for each set, in any order.

        Raises InputError for other lengths or types, DataError for a set that says nothing sound.
        """
        columns = {"query": queries, "labels": labels, "least": least, "most": most}
        return cls.from_table(table_of_rows(columns, cls.schema, "Candidate sets"), ANY, ANY, "Candidate sets")

    @classmethod
    def problems(cls, table: pa.Table, queries: int, labels: int, names: RowNames = BY_ROW) -> RowProblems:
        """See Evidence."""
        problems = RowProblems(len(table), names)
        problems.add_nulls(table)
        query, least, most = (_filled(table[name]) for name in ("query", "least", "most"))
        problems.add_outside(np.arange(len(table)), query, queries, "query")
        owners, listed = lists_of(table["labels"], problems, "label")
        problems.add_outside(owners, listed, labels, "label")
        problems.add_repeated(owners, listed, "label")
        sizes = np.bincount(owners, minlength=len(table))
        problems.add(
            (least < 0) | (least > most) | (most > sizes),
            "numbers that do not fit",
            lambda row: (
                f"between {least[row]} and {most[row]} of its {sizes[row]} labels are said to be true; least must be at least "
                f"0, and most from least to the number of labels."
            ),
        )
        return problems

    @classmethod
    def order(cls, table: pa.Table) -> Rows:
        """See Evidence."""
        return np.argsort(_filled(table["query"]), kind="stable")

    @classmethod
    def from_sound(cls, table: pa.Table) -> CandidateSets:
        """See Evidence."""
        query, least, most = (_filled(table[name]) for name in ("query", "least", "most"))
        owners, listed = lists_of(table["labels"], RowProblems(len(table)), "label")
        ordered = listed[np.lexsort((listed, owners))].astype(np.int64)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(table)))]).astype(np.int64)
        order = cls.order(table)
        places, indptr = places_of(indptr, order)
        return cls(query[order].astype(np.int64), indptr, ordered[places], least[order], most[order])

    def table(self) -> pa.Table:
        """See Evidence."""
        labels = pa.ListArray.from_arrays(pa.array(self.indptr, pa.int32()), pa.array(self.labels, pa.int32()))
        columns = {"query": self.queries, "labels": labels, "least": self.least, "most": self.most}
        return table_of_rows(columns, self.schema, "Candidate sets")

    def __len__(self) -> int:
        """Number of sets."""
        return len(self.queries)

    def __repr__(self) -> str:
        """Number of sets and of their labels."""
        return f"<{type(self).__name__}: {len(self):,} sets, {len(self.labels):,} labels in them>"

    @property
    def sizes(self) -> Rows:
        """Number of labels of each set, int64 [m]."""
        return np.diff(self.indptr)

    def renumbered(self, queries: Rows, labels: Rows | None = None) -> CandidateSets:
        """See Evidence. A set without some of its labels says less, and goes where it says nothing more.

        Labels that become one are taken for one label, also where the set has only one of them.
        """
        named = self.labels if labels is None else labels[self.labels]
        owners = np.repeat(np.arange(len(self)), self.sizes)
        order = np.lexsort((named, owners))
        named, gone = named[order], named[order] < 0
        again = np.zeros(len(named), bool)
        again[1:] = (np.diff(named) == 0) & (np.diff(owners) == 0) & ~gone[1:]
        dropped = np.bincount(owners[gone], minlength=len(self))
        merged = np.bincount(owners[again], minlength=len(self))
        indptr = masked_lists(self.indptr, ~gone & ~again)
        of_rest = np.maximum(self.least - dropped, 0)  # of what is there still, before labels become one
        least = np.maximum(np.minimum(of_rest, 1), of_rest - merged).astype(np.int32)
        most = np.minimum(self.most, np.diff(indptr)).astype(np.int32)
        moved = queries[self.queries]
        says = (dropped + merged == 0) | (least > 0) | (most < np.diff(indptr))
        kept = np.flatnonzero((moved >= 0) & (np.diff(indptr) > 0) & says)
        kept = kept[np.argsort(moved[kept], kind="stable")]
        places, starts = places_of(indptr, kept)
        return CandidateSets(moved[kept], starts, named[~gone & ~again][places], least[kept], most[kept])

    def _highest_query(self) -> int:
        return int(self.queries.max(initial=-1))


def _filled(column: pa.ChunkedArray) -> Counts:
    """The whole numbers of a column, 0 for null."""
    return np.asarray(pc.fill_null(column, 0).to_numpy(), np.int32)
