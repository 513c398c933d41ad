"""Columns of labels as Arrow tables: from lists, one below the other, values changed in some rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from xmc.arrays import Rows
from xmc.data.tables import RUN_COLUMNS
from xmc.errors import InputError

__all__ = [
    "ORIGIN",
    "RESERVED",
    "LabelColumns",
    "joined",
    "label_rows",
    "refuse_repeated",
    "replaced",
    "strings",
    "values_at",
    "with_values",
]

LabelColumns: TypeAlias = Mapping[str, Sequence[Any]] | pa.Table
"""Values by column name, one for each label."""

RESERVED = ("id", "uid", "text")
"""Columns that every label has, and that a user's own cannot be called."""
ORIGIN = pa.schema([(RUN_COLUMNS[1], pa.float32()), (RUN_COLUMNS[2], pa.int32())])
"""Further columns that a user's own cannot be called: the factor by which the vector of a label from outside of training was
scaled, and the number of examples that it was made from; null for labels of training. They are there where such a label is."""
CHUNKS = 64
"""More pieces of a column than this, left by as many small additions, are joined."""


def label_rows(
    uids: Sequence[str], texts: Sequence[str], columns: LabelColumns | None, origin: pa.Table | None = None
) -> pa.Table:
    """A table of uid, text, the user's columns, and those of `origin`, if any. InputError for values that do not fit."""
    if len(uids) != len(texts):
        raise InputError(f"{len(uids)} uids were given for {len(texts)} label texts.")
    given = _arrays({} if columns is None else columns, len(uids))
    known = {} if origin is None else {name: origin[name] for name in origin.column_names}
    return pa.table({"uid": strings(uids, "uid"), "text": strings(texts, "text"), **given, **known})


def replaced(table: pa.Table, values: pa.Table) -> pa.Table:
    """A table with the columns of another one of the same length, in place of those of the same names, or behind all."""
    for name in values.column_names:
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, values[name])
        else:
            table = table.append_column(name, values[name])
    return table


def joined(above: pa.Table, below: pa.Table) -> pa.Table:
    """One table below the other: null where a column lacks, in the wider of two types; InputError where there is none."""
    try:
        table = pa.concat_tables([above, below], promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"Values of another type than those that a column has: {error}") from error
    if table["uid"].num_chunks <= CHUNKS:
        return table
    first = len(table["uid"].chunk(0))
    if len(table) - first > len(table) // 4:
        return table.combine_chunks()
    return pa.concat_tables(
        [table.slice(0, first), table.slice(first).combine_chunks()]
    )  # the long piece is not copied


def with_values(table: pa.Table, rows: Rows, columns: LabelColumns) -> pa.Table:
    """The table with other values in some rows of some columns, old or new; elsewhere values stay, or are null."""
    places = np.arange(len(table))
    places[rows] = len(places) + np.arange(len(rows))
    for name, values in _arrays(columns, len(rows)).items():
        there = name in table.column_names
        before = table[name] if there else pa.nulls(len(table), values.type)
        try:
            both = pa.concat_tables([pa.table({name: before}), pa.table({name: values})], promote_options="permissive")
        except pa.ArrowException as error:
            raise InputError(f"Values of another type than those that a column has: {error}") from error
        column = both[name].take(pa.array(places))
        number = table.column_names.index(name) if there else -1
        table = table.set_column(number, name, column) if there else table.append_column(name, column)
    return table


def values_at(column: pa.ChunkedArray, rows: Rows) -> pa.Array:
    """The values of a column in some rows, in their order; no others are copied, however many pieces the column has."""
    pieces = column.chunks
    if len(pieces) == 1:
        return pieces[0].take(pa.array(rows))
    starts = np.cumsum([0, *map(len, pieces)])
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    bounds = np.searchsorted(ascending, starts).tolist()
    taken = [
        piece.take(pa.array(ascending[first:end] - start))
        for piece, start, first, end in zip(pieces, starts[:-1], bounds[:-1], bounds[1:], strict=True)
        if end > first
    ]
    return pa.chunked_array(taken, column.type).combine_chunks().take(pa.array(np.argsort(order)))


def strings(values: Sequence[str], name: str) -> pa.Array:
    """An array of strings; InputError for other values, and for a uid that is None."""
    try:
        array = pa.array(list(values), pa.string())
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"The {name} of a label must be a string: {error}") from error
    if name == "uid" and array.null_count:
        raise InputError(f"The uid of a label must be a string, but {array.null_count} are None.")
    return array


def refuse_repeated(uids: Sequence[str]) -> None:
    """InputError where a uid is given twice."""
    if len(set(uids)) < len(uids):
        uid = next(uid for uid, count in Counter(uids).items() if count > 1)
        raise InputError(f"The label {uid!r} is given more than once; give each label one time.")


def _arrays(columns: LabelColumns, count: int) -> dict[str, Any]:
    """Arrow arrays by name. InputError for a name that is reserved, another length, or values that are of no one type."""
    arrays = {}
    for name in columns.column_names if isinstance(columns, pa.Table) else columns:
        if name in RESERVED or name in ORIGIN.names:
            raise InputError(
                f"A column cannot be called {name!r}, as labels have one of their own; give it another name."
            )
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
