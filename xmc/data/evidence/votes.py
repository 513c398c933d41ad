"""Votes of weak sources on pairs of a query and a label: annotators, rules, models, complementary labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xmc.arrays import Mask, Rows
from xmc.data.evidence.rows import ANY, BY_ROW, Evidence, RowNames, RowProblems, sorting, table_of_rows
from xmc.errors import InputError

__all__ = ["Votes"]


@dataclass(frozen=True)
class Votes(Evidence):
    """Who says what of n pairs, sorted by query, label and source. A source says at most one thing of a pair.

    queries: rows of the split, int64 [n]. labels: rows of the labels, int64 [n]. sources: positions in `names`, int32 [n].
    names: of the sources, sorted. values: float32 [n] in [-1, 1]: 1 says that the label is relevant, -1 that it is not, what is
    between is less sure. Data programming calls the sources labelling functions (Ratner et al., NeurIPS 2016).

    >>> votes = Votes.from_arrays([1, 0], [5, 7], ["rule", "crowd"], [1.0, -0.5])
    >>> votes.queries.tolist(), votes.names, votes.of_source("rule").labels.tolist()
    ([0, 1], ('crowd', 'rule'), [5])
    """

    queries: Rows
    labels: Rows
    sources: npt.NDArray[np.int32]
    names: tuple[str, ...]
    values: npt.NDArray[np.float32]

    kind: ClassVar[str] = "votes"
    schema: ClassVar[pa.Schema] = pa.schema(
        [("query", pa.int32()), ("label", pa.int32()), ("source", pa.string()), ("value", pa.float32())]
    )

    @classmethod
    def from_arrays(
        cls,
        queries: Sequence[int] | Rows,
        labels: Sequence[int] | Rows,
        sources: Sequence[str],
        values: Sequence[float] | npt.NDArray[np.floating],
    ) -> Votes:
        """From a query, a label, the name of a source and a value for each vote, in any order.

        Raises InputError for other lengths or types, DataError for a value out of [-1, 1], a negative row and two votes of one
        source on a pair.
        """
        columns = {"query": queries, "label": labels, "source": sources, "value": values}
        return cls.from_table(table_of_rows(columns, cls.schema, "Votes"), ANY, ANY, "Votes")

    @classmethod
    def problems(cls, table: pa.Table, queries: int, labels: int, names: RowNames = BY_ROW) -> RowProblems:
        """See Evidence."""
        problems = RowProblems(len(table), names)
        problems.add_nulls(table)
        rows = np.arange(len(table))
        columns = {name: _filled(table[name]) for name in ("query", "label", "value")}
        problems.add_outside(rows, columns["query"], queries, "query")
        problems.add_outside(rows, columns["label"], labels, "label")
        unnamed = pc.equal(pc.fill_null(pc.utf8_length(table["source"]), 1), 0).to_numpy()
        problems.add(np.asarray(unnamed, bool), "source without a name", lambda row: "the source has no name.")
        values = columns["value"]
        problems.add(
            ~(np.abs(values) <= 1),
            "value out of range",
            lambda row: f"the value {values[row]:g} is not in [-1, 1]: 1 is relevant, -1 is not.",
        )
        _, sources = _sources(table["source"])
        pairs = _pairs(columns["query"], columns["label"])
        order = sorting(pairs, sources)
        order = order[~problems.bad[order]]
        problems.add(
            order[1:][_repeated(pairs[order], sources[order])],
            "second vote of a source",
            lambda row: (
                f"the source {table['source'][row].as_py()!r} votes a second time on {names.query(columns['query'][row])} and "
                f"{names.label(columns['label'][row])}; keep one vote."
            ),
        )
        return problems

    @classmethod
    def order(cls, table: pa.Table) -> Rows:
        """See Evidence."""
        _, sources = _sources(table["source"])
        return sorting(_pairs(_filled(table["query"]), _filled(table["label"])), sources)

    @classmethod
    def from_sound(cls, table: pa.Table) -> Votes:
        """See Evidence."""
        names, sources = _sources(table["source"])
        queries, labels, values = (_filled(table[name]) for name in ("query", "label", "value"))
        order = cls.order(table)
        return cls(
            queries[order].astype(np.int64), labels[order].astype(np.int64), sources[order], names, values[order]
        )

    def table(self) -> pa.Table:
        """See Evidence."""
        sources = pa.array(self.names, pa.string()).take(pa.array(self.sources))
        columns = {"query": self.queries, "label": self.labels, "source": sources, "value": self.values}
        return table_of_rows(columns, self.schema, "Votes")

    def __len__(self) -> int:
        """Number of votes."""
        return len(self.queries)

    def __repr__(self) -> str:
        """Number of votes, and the sources."""
        return f"<{type(self).__name__}: {len(self):,} votes of {', '.join(self.names) or 'no source'}>"

    def renumbered(self, queries: Rows, labels: Rows | None = None) -> Votes:
        """See Evidence. Of two votes of a source on labels that become one, the greater value stays. `names` stays as it is."""
        moved = queries[self.queries]
        named = self.labels if labels is None else labels[self.labels]
        kept = np.flatnonzero((moved >= 0) & (named >= 0))
        pairs, sources = _pairs(moved[kept], named[kept]), self.sources[kept]
        order = sorting(pairs, sources) if labels is None else np.lexsort((-self.values[kept], sources, pairs))
        first = np.ones(len(order), bool)
        first[1:] = ~_repeated(pairs[order], sources[order])
        order = kept[order[first]]
        return Votes(moved[order], named[order], self.sources[order], self.names, self.values[order])

    def of_source(self, name: str) -> Votes:
        """The votes of one source; `names` stays as it is. Raises InputError for a source that there is none of."""
        if name not in self.names:
            raise InputError(f"There is no source {name!r}, only {', '.join(self.names) or 'none'}.")
        return self.where(self.sources == self.names.index(name))

    def where(self, kept: Mask) -> Votes:
        """The votes that a mask, bool [n], keeps."""
        return Votes(self.queries[kept], self.labels[kept], self.sources[kept], self.names, self.values[kept])

    def joined(self, others: Votes | None) -> Votes:
        """These votes and those of other sources. Raises InputError for a source that both have."""
        if others is None:
            return self
        both = [name for name in self.names if name in others.names]
        if both:
            raise InputError(f"There are votes of a source {both[0]!r} already; give these another name.")
        return Votes.from_sound(pa.concat_tables([others.table(), self.table()]))

    def _highest_query(self) -> int:
        return int(self.queries.max(initial=-1))


def _pairs(queries: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Rows:
    """A number for each pair of a query and a label, in their order, int64 [n]."""
    return np.asarray((queries.astype(np.int64) << 31) + labels, np.int64)


def _repeated(pairs: Rows, sources: npt.NDArray[np.int32]) -> Mask:
    """Which votes, from the second on, are of the pair and the source of the one before, bool [n - 1]. All are in order."""
    return np.asarray((pairs[1:] == pairs[:-1]) & (sources[1:] == sources[:-1]))


def _filled(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """The values, 0 for null."""
    return np.asarray(pc.fill_null(column, 0).to_numpy())


def _sources(column: pa.ChunkedArray) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
    """The names of the sources, sorted, and the position of each row's, -1 for null."""
    names = sorted(name for name in pc.unique(column).to_pylist() if name is not None)
    positions = pc.index_in(column, value_set=pa.array(names, pa.string()))
    return tuple(names), np.asarray(pc.fill_null(positions, -1).to_numpy(), np.int32)
