"""Label proportions: bags of queries, with nothing known but how many of a bag have a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.arrays import Rows, places_of
from xmc.data.evidence.rows import ANY, BY_ROW, Evidence, RowNames, RowProblems, lists_of, masked_lists, table_of_rows

__all__ = ["LabelBags"]


@dataclass(frozen=True)
class LabelBags(Evidence):
    """b bags: of the queries of a bag, counts[k] have the label labels[k]. Learning from label proportions calls them so.

    query_indptr: int64 [b + 1]. queries: rows of the split, int64 [nq], bag i has those from query_indptr[i] to
    query_indptr[i + 1], ascending and each once. label_indptr: int64 [b + 1]. labels: int64 [nl], ascending and each once in a
    bag. counts: float32 [nl], from 0 to the number of queries; a share times that number is a count. No label of a query is
    counted in two bags. Quadrianto et al., "Estimating labels from label proportions" (JMLR 2009).

    The section data.bags of the configuration is another thing: there a bag is a long text, and its members are passages.

    >>> bags = LabelBags.from_lists([[4, 1]], [[7, 2]], [[2, 1]])
    >>> bags.queries.tolist(), bags.labels.tolist(), bags.counts.tolist()
    ([1, 4], [2, 7], [1.0, 2.0])
    """

    query_indptr: Rows
    queries: Rows
    label_indptr: Rows
    labels: Rows
    counts: npt.NDArray[np.float32]

    kind: ClassVar[str] = "bags"
    schema: ClassVar[pa.Schema] = pa.schema(
        [("queries", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32())), ("counts", pa.list_(pa.float32()))]
    )

    @classmethod
    def from_lists(cls, queries: Sequence[Any], labels: Sequence[Any], counts: Sequence[Any]) -> LabelBags:
        """From a list of queries, one of labels and one of counts for each bag.

        Raises InputError for other lengths or types, DataError for a bag that says nothing sound.
        """
        columns = {"queries": queries, "labels": labels, "counts": counts}
        return cls.from_table(table_of_rows(columns, cls.schema, "Bags"), ANY, ANY, "Bags")

    @classmethod
    def problems(cls, table: pa.Table, queries: int, labels: int, names: RowNames = BY_ROW) -> RowProblems:
        """See Evidence."""
        problems = RowProblems(len(table), names)
        problems.add_nulls(table)
        of_queries, members = lists_of(table["queries"], problems, "query")
        of_labels, listed = lists_of(table["labels"], problems, "label")
        of_counts, counts = lists_of(table["counts"], problems, "count")
        for owners, values, size, what in (
            (of_queries, members, queries, "query"),
            (of_labels, listed, labels, "label"),
        ):
            problems.add_outside(owners, values, size, what)
            problems.add_repeated(owners, values, what)
        sizes, there, given = (np.bincount(of, minlength=len(table)) for of in (of_queries, of_labels, of_counts))
        problems.add(
            there != given,
            "counts of another length",
            lambda row: f"it has {there[row]} labels and {given[row]} counts.",
        )
        wrong = ~((counts >= 0) & (counts <= sizes[of_counts]))
        first = dict(zip(of_counts[wrong][::-1].tolist(), counts[wrong][::-1].tolist(), strict=True))
        problems.add(
            of_counts[wrong],
            "count out of range",
            lambda row: f"the count {first[row]:g} is not a number from 0 to its {sizes[row]} queries.",
        )
        _add_counted_twice(problems, (of_queries, members), (of_labels, listed))
        return problems

    @classmethod
    def order(cls, table: pa.Table) -> Rows:
        """See Evidence: that of the table."""
        return np.arange(len(table))

    @classmethod
    def from_sound(cls, table: pa.Table) -> LabelBags:
        """See Evidence."""
        (of_queries, members), (of_labels, listed), (_, counts) = (
            lists_of(table[name], RowProblems(len(table)), name) for name in cls.schema.names
        )
        order = np.lexsort((listed, of_labels))
        starts = [
            np.concatenate([[0], np.cumsum(np.bincount(of, minlength=len(table)))]).astype(np.int64)
            for of in (of_queries, of_labels)
        ]
        queries = members[np.lexsort((members, of_queries))].astype(np.int64)
        return cls(starts[0], queries, starts[1], listed[order].astype(np.int64), counts[order].astype(np.float32))

    def table(self) -> pa.Table:
        """See Evidence."""
        values = {
            "queries": (self.query_indptr, pa.array(self.queries, pa.int32())),
            "labels": (self.label_indptr, pa.array(self.labels, pa.int32())),
            "counts": (self.label_indptr, pa.array(self.counts, pa.float32())),
        }
        lists = {
            name: pa.ListArray.from_arrays(pa.array(indptr, pa.int32()), items)
            for name, (indptr, items) in values.items()
        }
        return table_of_rows(lists, self.schema, "Bags")

    def __len__(self) -> int:
        """Number of bags."""
        return len(self.query_indptr) - 1

    def __repr__(self) -> str:
        """Number of bags, and of queries and counts in them."""
        sizes = f"{len(self.queries):,} queries and {len(self.counts):,} counts in them"
        return f"<{type(self).__name__}: {len(self):,} bags, {sizes}>"

    @property
    def sizes(self) -> Rows:
        """Number of queries of each bag, int64 [b]."""
        return np.diff(self.query_indptr)

    def renumbered(self, queries: Rows, labels: Rows | None = None) -> LabelBags:
        """See Evidence. A bag that loses a query is left out whole, for its counts are of all. Where a bag counts
        labels that become one, these counts are left out, for how many queries have either is not known; and so is a bag
        without labels then."""
        named = self.labels if labels is None else labels[self.labels]
        owners = np.repeat(np.arange(len(self)), np.diff(self.label_indptr))
        order = np.lexsort((named, owners))
        named = named[order]
        same = (np.diff(named) == 0) & (np.diff(owners) == 0)
        there = named >= 0
        there[1:] &= ~same
        there[:-1] &= ~same
        indptr = masked_lists(self.label_indptr, there)
        moved = queries[self.queries]
        kept = np.flatnonzero(self._whole(moved >= 0) & (np.diff(indptr) > 0))
        places, label_indptr = places_of(indptr, kept)
        members, query_indptr = places_of(self.query_indptr, kept)
        of_bag = np.repeat(np.arange(len(kept)), np.diff(query_indptr))
        ascending = np.lexsort((moved[members], of_bag))
        counts = self.counts[order][there][places]
        return LabelBags(query_indptr, moved[members][ascending], label_indptr, named[there][places], counts)

    def number_cut(self, rows: npt.NDArray[np.integer]) -> int:
        """Number of bags with queries among `rows` and others beside: those that `take` leaves out though it has a part."""
        there = self._positions(rows)[self.queries] >= 0
        some = np.logical_or.reduceat(there, self.query_indptr[:-1]) if len(self) else there
        return int((some & ~self._whole(there)).sum())

    def _whole(self, there: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Bags whose queries are all there, bool [b]. there: bool [nq]."""
        return np.logical_and.reduceat(there, self.query_indptr[:-1]) if len(self) else np.zeros(0, bool)

    def _highest_query(self) -> int:
        return int(self.queries.max(initial=-1))


def _add_counted_twice(
    problems: RowProblems, queries: tuple[Rows, npt.NDArray[Any]], labels: tuple[Rows, npt.NDArray[Any]]
) -> None:
    """Note bags with a label of a query that an earlier bag counts too. queries, labels: the bag of each, and what it is."""
    bags, members = queries
    _, places, times = np.unique(members, return_inverse=True, return_counts=True)
    shared = (times[places] > 1) & ~problems.bad[bags]
    if not shared.any():
        return
    bags, members = bags[shared], members[shared]
    starts = np.searchsorted(labels[0], np.arange(len(problems.bad) + 1)).astype(np.int64)
    listed, indptr = places_of(starts, bags)
    pairs = np.repeat(np.arange(len(bags)), np.diff(indptr))
    query, label, bag = members[pairs], labels[1][listed], bags[pairs]
    order = np.lexsort((bag, label, query))
    again = order[1:][(np.diff(query[order]) == 0) & (np.diff(label[order]) == 0)]
    first = dict(zip(bag[again][::-1].tolist(), zip(query[again][::-1], label[again][::-1], strict=True), strict=True))
    problems.add(
        bag[again],
        "pair counted twice",
        lambda row: (
            f"{problems.names.label(first[row][1])} of {problems.names.query(first[row][0])} is counted in an earlier bag "
            f"already; count a label of a query in one bag."
        ),
    )
