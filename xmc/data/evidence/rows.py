"""What all kinds of evidence share: a table of rows, what is wrong with single rows, and new numbers of queries and labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import Self

from xmc.arrays import Mask, Rows
from xmc.errors import DataError, InputError

__all__ = [
    "ANY",
    "BY_ROW",
    "Evidence",
    "RowNames",
    "RowProblems",
    "lists_of",
    "masked_lists",
    "sorting",
    "table_of_rows",
]

ANY = 2**31
"""Number of queries or labels where it is not known: all that int32 counts."""


@dataclass(frozen=True)
class RowNames:
    """What messages call queries and labels: their uids, string arrays by row, where a source has them, else their rows."""

    queries: pa.Array | None = None
    labels: pa.Array | None = None

    def query(self, row: int) -> str:
        """Such as "query 3", or "query 'q3'"."""
        return f"query {row if self.queries is None else repr(self.queries[row].as_py())}"

    def label(self, row: int) -> str:
        """As `query`."""
        return f"label {row if self.labels is None else repr(self.labels[row].as_py())}"


BY_ROW = RowNames()


class Evidence(ABC):
    """Evidence of one kind about the queries of a split, in arrays; a file `KIND-SPLIT.parquet` holds it as rows of a table."""

    kind: ClassVar[str]
    """The first word of its files' names."""
    schema: ClassVar[pa.Schema]
    """The columns of its files."""

    @classmethod
    def from_table(cls, table: pa.Table, queries: int, labels: int, where: str) -> Self:
        """From a table with `schema`, in any order of its rows.

        queries, labels: number of rows of the split and of the labels. where: what messages begin with. Raises DataError for
        the first row that says nothing sound.
        """
        problems = cls.problems(table, queries, labels)
        for row, (_, message) in sorted(problems.found.items()):
            raise DataError(f"{where}, row {row}: {message}")
        return cls.from_sound(table)

    @classmethod
    @abstractmethod
    def problems(cls, table: pa.Table, queries: int, labels: int, names: RowNames = BY_ROW) -> RowProblems:
        """What is wrong with rows of a table with `schema`, as for `from_table`. names: for messages."""

    @classmethod
    @abstractmethod
    def order(cls, table: pa.Table) -> Rows:
        """The rows of a table without problems in the order that arrays have them, int64 [n]."""

    @classmethod
    @abstractmethod
    def from_sound(cls, table: pa.Table) -> Self:
        """From rows without problems."""

    @abstractmethod
    def table(self) -> pa.Table:
        """The table with `schema`."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows of the table."""

    @abstractmethod
    def renumbered(self, queries: Rows, labels: Rows | None = None) -> Self:
        """What it says once queries and labels have other rows.

        queries, labels: the new row of each row, int64 [rows before], -1 for one that is gone; labels None where they stay.
        Labels may become one.
        """

    @abstractmethod
    def _highest_query(self) -> int:
        """The highest row of a query, -1 for none."""

    def take(self, rows: npt.NDArray[np.integer]) -> Self:
        """What it says of the queries `rows`, of the split, in any order and each once; queries are positions in `rows` then.

        Raises InputError for a row given twice.
        """
        return self.renumbered(self._positions(rows))

    def _positions(self, rows: npt.NDArray[np.integer]) -> Rows:
        """The position in `rows` of each row of the split, -1 for one that is not there, int64."""
        taken = np.asarray(rows, np.int64)
        positions = np.full(max(int(taken.max(initial=-1)), self._highest_query()) + 1, -1, np.int64)
        positions[taken] = np.arange(len(taken))
        if int((positions >= 0).sum()) < len(taken):
            raise InputError("Evidence is taken of rows that each are given once, but one is there twice.")
        return positions


class RowProblems:
    """What is wrong with the n rows of a table, the first thing of each.

    bad: bool [n]. found: by row, a short phrase and a sentence. names: what these call queries and labels.
    """

    def __init__(self, rows: int, names: RowNames = BY_ROW) -> None:
        self.names = names
        self.bad: Mask = np.zeros(rows, bool)
        self.found: dict[int, tuple[str, str]] = {}

    def add(self, rows: Mask | Rows, reason: str, message: Callable[[int], str]) -> None:
        """Note what is wrong with rows, bool [n] or their numbers, unless something is noted already."""
        numbers = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.unique(rows)
        for row in numbers[~self.bad[numbers]].tolist():
            self.found[row] = (reason, message(row))
        self.bad[numbers] = True

    def add_nulls(self, table: pa.Table) -> None:
        """Note rows with a null in any column, or in a list."""
        for name in table.schema.names:
            if table[name].null_count:
                nulls = pc.is_null(table[name]).to_numpy()
                self.add(np.asarray(nulls), f"null {name}", lambda row, name=name: f"{name} is null.")  # type: ignore[misc]

    def add_outside(self, owners: Rows, values: npt.NDArray[Any], size: int, what: str) -> None:
        """Note rows that name a query or label that is not there. owners: the row of each value, int64 [m]."""
        outside = (values < 0) | (values >= size)
        first = dict(zip(owners[outside][::-1].tolist(), values[outside][::-1].tolist(), strict=True))
        self.add(
            owners[outside],
            f"{what} out of range",
            lambda row: (
                f"{what} {first[row]} is outside of the {size:,} {'queries' if what == 'query' else 'labels'} (0-based)."
            ),
        )

    def add_repeated(self, owners: Rows, values: npt.NDArray[Any], what: str) -> None:
        """Note rows whose list names something twice."""
        order = np.lexsort((values, owners))
        again = (np.diff(owners[order]) == 0) & (np.diff(values[order]) == 0)
        places = order[1:][again]
        first = dict(zip(owners[places][::-1].tolist(), values[places][::-1].tolist(), strict=True))
        named = self.names.query if what == "query" else self.names.label
        self.add(owners[places], f"{what} twice", lambda row: f"{named(first[row])} is there twice; name it once.")


def sorting(*keys: npt.NDArray[Any]) -> Rows:
    """The order of rows by the first key, those with an equal one by the next, and so on, int64 [n]. Quick where they
    are in it."""
    equal = np.ones(max(0, len(keys[0]) - 1), bool)
    for key in keys:
        if (equal & (key[1:] < key[:-1])).any():
            return np.lexsort(keys[::-1])
        equal &= key[1:] == key[:-1]
    return np.arange(len(keys[0]))


def lists_of(column: pa.ChunkedArray, problems: RowProblems, what: str) -> tuple[Rows, npt.NDArray[Any]]:
    """The items of a column of lists, and the row of each, int64 [m]; rows with a null or an empty list are problems."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False), np.int64)
    problems.add(lengths == 0, f"no {what}", lambda row: f"it has no {what}.")
    owners = np.repeat(np.arange(len(lengths)), lengths)
    items = array.flatten()
    if items.null_count:
        nulls = items.is_null().to_numpy(zero_copy_only=False)
        problems.add(owners[nulls], f"null {what}", lambda row: f"there is a null in its list; leave the {what} out.")
        items = pc.fill_null(items, 0)
    return owners, items.to_numpy(zero_copy_only=False)


def masked_lists(indptr: Rows, kept: Mask) -> Rows:
    """Where lists begin and end once only some items are kept, int64 [n + 1]. kept: bool, one an item."""
    return np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)[indptr]


def table_of_rows(columns: dict[str, Any], schema: pa.Schema, what: str) -> pa.Table:
    """A table of sequences by name; InputError, which begins with `what`, for other lengths and types."""
    try:
        return pa.table(
            {name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema=schema
        )
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{what} must be columns {', '.join(schema.names)} of one length: {error}") from error
