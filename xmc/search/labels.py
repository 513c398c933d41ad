"""The labels of a retriever: an Arrow table that never changes; a change makes another one that shares its memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import acero
from pyarrow import compute as pc

from xmc.errors import InputError
from xmc.indexes.identifiers import RowLookup

__all__ = ["RESERVED", "Columns", "LabelTable", "refuse_repeated"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Columns: TypeAlias = Mapping[str, Sequence[Any]] | pa.Table
"""Values by column name, one for each label."""

RESERVED = ("id", "uid", "text")
"""Columns that every label table has, and that a user's own cannot be called."""
CHUNKS = 64
"""More pieces than this, left by as many small additions, are joined."""
COMPACT_SHARE = 0.25
"""Removed labels are forgotten when they are more than this share of all rows."""


class LabelTable:
    """Labels by row: an id that never changes (the index's), the user's uid, the text, and any columns of the user's.

    next_id: above all ids that were ever given, so that no id comes to mean another label.
    Rows are numbered from 0 in the order in which labels came, as in an index over them. Values stay in Arrow's memory; what
    finds the row of a uid is made when it is first needed.
    """

    def __init__(self, table: pa.Table, next_id: int, alive: Mask | None = None) -> None:
        """Use `of` or `read`. alive: which rows of `table` are labels still; None for all."""
        self.next_id = next_id
        self._everything, self._alive = table, alive
        self._lookup: tuple[RowLookup, npt.NDArray[np.object_]] | None = None

    @classmethod
    def of(cls, uids: Sequence[str], texts: Sequence[str], columns: Columns | None = None) -> LabelTable:
        """Labels with ids from 0 on. InputError for columns of another length, or called id, uid or text."""
        return cls(_rows_of(0, uids, texts, columns), len(uids))

    @classmethod
    def read(cls, file: Path, next_id: int) -> LabelTable:
        """What `write` wrote. KeyError, OSError or pyarrow's errors where it is something else."""
        table = pq.read_table(file, memory_map=True)
        table = table.select([*RESERVED, *(name for name in table.column_names if name not in RESERVED)])
        types = [pa.int64(), pa.string(), pa.string(), *table.schema.types[len(RESERVED) :]]
        return cls(table.cast(pa.schema(list(zip(table.column_names, types, strict=True)))).combine_chunks(), next_id)

    def write(self, file: Path) -> None:
        """Write a Parquet file with the columns id, uid, text and the user's."""
        own = [name for name in self.table.column_names if name not in RESERVED]
        pq.write_table(self.table, file, compression="zstd", use_dictionary=own)  # uids and texts hardly repeat

    def __len__(self) -> int:
        """Number of labels."""
        return len(self._everything) if self._alive is None else len(self._living)

    @cached_property
    def ids(self) -> Rows:
        """int64 [L]."""
        ids: Rows = self._everything["id"].to_numpy()
        return ids if self._alive is None else ids[self._alive]

    @cached_property
    def table(self) -> pa.Table:
        """id, uid, text and the user's columns, by row."""
        return self._everything if self._alive is None else self._everything.filter(pa.array(self._alive))

    @property
    def uids(self) -> pa.ChunkedArray:
        """Strings [L]."""
        return self.table["uid"]

    @property
    def texts(self) -> pa.ChunkedArray:
        """Strings [L]."""
        return self.table["text"]

    @property
    def columns(self) -> pa.Schema:
        """What a condition may name: uid, text and the user's columns, with their types."""
        return pa.schema([field for field in self._everything.schema if field.name != "id"])

    def rows(self, uids: Sequence[str]) -> Rows:
        """The row of each uid, -1 for one that is not there."""
        at = self._at(uids)
        return at if self._alive is None else np.where(at >= 0, np.searchsorted(self._living, at), -1)

    def known_rows(self, uids: Sequence[str]) -> Rows:
        """As `rows`; InputError for a uid that is not there, or for one bare string."""
        if isinstance(uids, str):
            raise InputError("uids must be a list; put a single uid into a list.")
        uids = list(uids)
        rows = self.rows(uids)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            raise InputError(f"There is no label {uids[missing[0]]!r} in this retriever ({len(missing)} not found).")
        return rows

    def rows_of_ids(self, ids: Rows) -> Rows:
        """The row of each id, of any shape, -1 for one that is not there."""
        ordered, order = self._by_id
        if len(self) == self.next_id and order is None:  # they are the row numbers
            return np.where((ids >= 0) & (ids < len(self)), ids, -1)
        if not len(self):
            return np.full(ids.shape, -1)
        places = np.minimum(np.searchsorted(ordered, ids), len(ordered) - 1)
        return np.where(ordered[places] == ids, places if order is None else order[places], -1)

    def uids_of(self, ids: Rows) -> npt.NDArray[np.object_]:
        """The uid of each id, of any shape; None for one that is not there."""
        rows = self.rows_of_ids(ids)
        uids = np.full(ids.shape, None, object)
        uids[rows >= 0] = self._taken("uid", rows[rows >= 0])
        return uids

    def texts_of(self, rows: Rows) -> list[str]:
        """The texts of some rows."""
        return [text or "" for text in self._taken("text", rows)]

    def append(self, uids: Sequence[str], texts: Sequence[str], columns: Columns | None = None) -> LabelTable:
        """The table with new labels, under new ids; values that `columns` or the table lack are null.

        Raises InputError for a uid that is there already or given twice, and for columns that do not fit.
        """
        uids = list(uids)
        added = _rows_of(self.next_id, uids, texts, columns)
        taken = np.flatnonzero(self._at(uids) >= 0)
        if len(taken):
            raise InputError(f"The label {uids[taken[0]]!r} is already there; remove it first, or give another uid.")
        refuse_repeated(uids)
        return self._extended(added, self._alive, self.next_id + len(uids))

    def select(self, kept: Mask) -> LabelTable:
        """The table of the rows where `kept`, bool [L], is set."""
        alive = kept.copy() if self._alive is None else self._alive.copy()
        if self._alive is not None:
            alive[self._living] = kept
        return self._compacted(self._everything, alive, self.next_id)

    def replace(self, rows: Rows, texts: Sequence[str]) -> LabelTable:
        """The table with new texts for some rows, which become the last ones, in their order; the rest of them stays."""
        at = rows if self._alive is None else self._living[rows]
        changed = self._everything.take(pa.array(at)).set_column(2, "text", _strings(texts, "text"))
        alive = np.ones(len(self._everything), bool) if self._alive is None else self._alive.copy()
        alive[at] = False
        return self._extended(changed, alive, self.next_id)

    def with_columns(self, rows: Rows, columns: Columns) -> LabelTable:
        """The table with other values in some rows of some columns, old ones or new; elsewhere values stay, or are null."""
        at = rows if self._alive is None else self._living[rows]
        places = np.arange(len(self._everything))
        places[at] = len(places) + np.arange(len(at))
        table = self._everything
        for name, values in _own_columns(columns, len(rows)).items():
            there = name in table.column_names
            before = table[name] if there else pa.nulls(len(table), values.type)
            joined = _joined([pa.table({name: before}), pa.table({name: values})])[name].take(pa.array(places))
            table = (
                table.set_column(table.column_names.index(name), name, joined)
                if there
                else table.append_column(name, joined)
            )
        later = LabelTable(table, self.next_id, self._alive)
        later._lookup = self._lookup
        return later

    def matching(self, condition: pc.Expression) -> Mask:
        """Where a condition over the columns holds, bool [L]; it does not where it is null.

        Raises InputError, which names the columns, for one that is not there or values of another type.
        """
        row = "row"
        while row in self._everything.column_names:
            row += "_"
        table = self._everything.drop_columns(["id"]).append_column(row, pa.array(np.arange(len(self._everything))))
        plan = [
            acero.Declaration("table_source", acero.TableSourceNodeOptions(table)),
            acero.Declaration("filter", acero.FilterNodeOptions(condition)),
            acero.Declaration("project", acero.ProjectNodeOptions([pc.field(row)], [row])),
        ]
        try:
            found = acero.Declaration.from_sequence(plan).to_table()[row].to_numpy()
        except (pa.ArrowException, TypeError, ValueError) as error:
            there = ", ".join(f"{field.name} ({field.type})" for field in self.columns)
            reason = str(error).splitlines()[0]
            raise InputError(
                f"The condition {condition} does not fit the labels, whose columns are {there}: {reason}"
            ) from error
        holds = np.zeros(len(self._everything), bool)
        holds[found] = True
        return holds if self._alive is None else holds[self._alive]

    @cached_property
    def _living(self) -> Rows:
        """Where the rows lie in `_everything`."""
        return np.arange(len(self._everything)) if self._alive is None else np.flatnonzero(self._alive)

    @cached_property
    def _by_id(self) -> tuple[Rows, Rows | None]:
        """The ids in ascending order, and their rows; None where they are in that order."""
        if (np.diff(self.ids) > 0).all():
            return self.ids, None
        order = np.argsort(self.ids, kind="stable")
        return self.ids[order], order

    def _at(self, uids: Sequence[str]) -> Rows:
        """Where uids lie in `_everything`, -1 for one that is not there."""
        at = self._finder()[0].find(uids)
        if self._alive is not None:
            at[(at >= 0) & ~self._alive[at]] = -1
        return at

    def _taken(self, name: str, rows: Rows) -> list[Any]:
        at = rows if self._alive is None else self._living[rows]
        return list(self._everything[name].take(pa.array(at)).to_pylist())

    def _finder(self) -> tuple[RowLookup, npt.NDArray[np.object_]]:
        if self._lookup is None:
            uids = self._everything["uid"].to_numpy(zero_copy_only=False)
            self._lookup = RowLookup(uids.tolist), uids
        return self._lookup

    def _extended(self, added: pa.Table, alive: Mask | None, next_id: int) -> LabelTable:
        """With rows behind all others; `alive` is of the others."""
        table = _joined([self._everything, added])
        if table["id"].num_chunks > CHUNKS:
            table = table.combine_chunks()
        later = self._compacted(table, None if alive is None else np.append(alive, np.ones(len(added), bool)), next_id)
        if len(later._everything) == len(table):
            lookup, uids = self._finder()
            new = added["uid"].to_numpy(zero_copy_only=False)
            together = np.concatenate([uids, new])
            later._lookup = lookup.with_rows(new.tolist(), len(uids)), together
        return later

    def _compacted(self, table: pa.Table, alive: Mask | None, next_id: int) -> LabelTable:
        """Without removed rows, where they are more than a share of all."""
        if alive is not None and len(table) - alive.sum() > COMPACT_SHARE * len(table):
            return LabelTable(table.filter(pa.array(alive)).combine_chunks(), next_id)
        later = LabelTable(table, next_id, alive)
        if len(table) == len(self._everything):
            later._lookup = self._lookup
        return later


def refuse_repeated(uids: Sequence[str]) -> None:
    """InputError where a uid is given twice."""
    if len(set(uids)) < len(uids):
        uid = next(uid for uid, count in Counter(uids).items() if count > 1)
        raise InputError(f"The label {uid!r} is given more than once; give each label one time.")


def _rows_of(first_id: int, uids: Sequence[str], texts: Sequence[str], columns: Columns | None) -> pa.Table:
    if len(uids) != len(texts):
        raise InputError(f"{len(uids)} uids were given for {len(texts)} label texts.")
    return pa.table(
        {
            "id": pa.array(np.arange(first_id, first_id + len(uids))),
            "uid": _strings(uids, "uid"),
            "text": _strings(texts, "text"),
            **_own_columns({} if columns is None else columns, len(uids)),
        }
    )


def _strings(values: Sequence[str], name: str) -> pa.Array:
    try:
        array = pa.array(list(values), pa.string())
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"The {name} of a label must be a string: {error}") from error
    if name == "uid" and array.null_count:
        raise InputError(f"The uid of a label must be a string, but {array.null_count} are None.")
    return array


def _own_columns(columns: Columns, count: int) -> dict[str, Any]:
    """Arrow arrays by name. InputError for a name that is reserved, another length, or values that are of no one type."""
    arrays = {}
    for name in columns.column_names if isinstance(columns, pa.Table) else columns:
        if name in RESERVED:
            raise InputError(f"A column cannot be called {name!r}, as every label has one; give it another name.")
        given: Any = columns[name]
        if isinstance(given, str):
            raise InputError(f"The column {name!r} must be a list of values, one for each label, but is a string.")
        try:
            array = given if isinstance(given, (pa.Array, pa.ChunkedArray)) else pa.array(given)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InputError(f"The values of the column {name!r} are not of one type: {error}") from error
        if len(array) != count:
            raise InputError(f"The column {name!r} has {len(array)} values for {count} labels.")
        arrays[str(name)] = array
    return arrays


def _joined(tables: list[pa.Table]) -> pa.Table:
    """One below the other: null where a column lacks, in the wider of two types; InputError where there is none."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"Values of another type than those that a column has: {error}") from error
