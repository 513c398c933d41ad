"""Changes of labels: each makes the next version of the labels, and of their index by rows alone.

A change is called with the version before and returns the one after; see LabelStore.apply. The index takes part by
`append`, `remove` and `compact` of its rows: it knows neither uids nor ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from xmc.arrays import Embeddings, Ids, Rows
from xmc.errors import InputError
from xmc.indexes.checks import require_matrix
from xmc.search.label_columns import (
    LabelColumns,
    joined,
    label_rows,
    refuse_repeated,
    replaced,
    strings,
    with_values,
)
from xmc.search.labels import LabelVersion

__all__ = [
    "Added",
    "Change",
    "ColumnsSet",
    "Compacted",
    "Remembered",
    "Removed",
    "Several",
    "Updated",
    "new_rows",
    "number_of_rows",
    "remembered_ids",
    "updated_rows",
]


class Change(Protocol):
    """What makes a version of the labels into the next. InputError for one that does not fit, before anything changes."""

    def __call__(self, before: LabelVersion, /) -> LabelVersion:
        """The version after the change."""


@dataclass(frozen=True)
class Added:
    """New labels, under new ids; values that `columns` or the labels before lack are null.

    embeddings: float32 [n, D]. origin: values of the columns of label_columns.ORIGIN; None for labels as those of training.
    Raises InputError for a uid that is there already or given twice, columns that do not fit, and embeddings that are NaN or
    infinite.
    """

    uids: Sequence[str]
    texts: Sequence[str]
    embeddings: Embeddings
    columns: LabelColumns | None = None
    origin: pa.Table | None = None

    def __call__(self, before: LabelVersion) -> LabelVersion:
        """See Change."""
        rows = new_rows(before, self.uids, self.texts, self.columns, self.origin)
        ids = np.arange(before.next_id, before.next_id + len(rows))
        after = _extended(before, rows, ids, self.embeddings)
        return replace(after, next_id=before.next_id + len(rows))


@dataclass(frozen=True)
class Removed:
    """Labels that go. InputError for a uid that is not there."""

    uids: Sequence[str]

    def __call__(self, before: LabelVersion) -> LabelVersion:
        """See Change."""
        return before.with_index(before.index.remove(before.known_index_rows(self.uids)))


@dataclass(frozen=True)
class Updated:
    """Other texts and embeddings, float32 [n, D], of labels, which come last; ids and columns stay.

    origin: as of `Added`. InputError for a uid that is not there or given twice.
    """

    uids: Sequence[str]
    texts: Sequence[str]
    embeddings: Embeddings
    origin: pa.Table | None = None

    def __call__(self, before: LabelVersion) -> LabelVersion:
        """See Change."""
        rows = updated_rows(before, self.uids, self.texts)
        changed = before.everything.take(pa.array(rows))
        changed = replaced(changed, pa.table({"text": strings(self.texts, "text")}))
        changed = changed if self.origin is None else replaced(changed, self.origin)
        without = before.with_index(before.index.remove(rows))
        return _extended(without, changed, before.all_ids.values[rows], self.embeddings)


@dataclass(frozen=True)
class ColumnsSet:
    """Values of some labels in some columns, old or new. InputError for a uid that is not there or given twice."""

    uids: Sequence[str]
    columns: LabelColumns

    @classmethod
    def from_columns(cls, columns: LabelColumns) -> ColumnsSet:
        """A table, or values by name, with a column `uid` among them. InputError for one without."""
        values = columns if isinstance(columns, pa.Table) else dict(columns)
        names = values.column_names if isinstance(values, pa.Table) else list(values)
        if "uid" not in names:
            raise InputError(f"set_columns needs a column uid beside {', '.join(map(str, names)) or 'the others'}.")
        uids: Any = values["uid"]
        uids = uids.to_pylist() if isinstance(uids, (pa.ChunkedArray, pa.Array)) else uids
        return cls(uids, {name: values[name] for name in names if name != "uid"})

    def __call__(self, before: LabelVersion) -> LabelVersion:
        """See Change."""
        refuse_repeated(self.uids)
        rows = before.known_index_rows(self.uids)
        return replace(before, everything=with_values(before.everything, rows, self.columns))


@dataclass(frozen=True)
class Remembered:
    """Judged queries that join the memory: vectors in its space, float32 [n, D], texts, and the uids of true labels of each.

    InputError for labels without a memory, a uid that is not there, and numbers that differ.
    """

    embeddings: Embeddings
    texts: Sequence[str]
    uids: Sequence[Sequence[str]]

    def __call__(self, before: LabelVersion) -> LabelVersion:
        """See Change."""
        ids = remembered_ids(before, self.texts, self.uids)
        assert before.memory is not None  # remembered_ids refused
        return before.remembering(before.memory.append(self.embeddings, ids, self.texts))


@dataclass(frozen=True)
class Several:
    """Changes one after the other as one: nobody sees what is between them. InputError as the first that does not fit."""

    changes: Sequence[Change]

    def __call__(self, before: LabelVersion) -> LabelVersion:
        """See Change."""
        for change in self.changes:
            before = change(before)
        return before


@dataclass(frozen=True)
class Compacted:
    """Removed labels are forgotten, and the index rows of the others numbered anew, in the same order."""

    def __call__(self, before: LabelVersion) -> LabelVersion:
        """See Change."""
        return before if before.alive is None else before.compacted(before.index.compact())


def number_of_rows(change: Change) -> int:
    """Number of labels and queries that a change names; 1 for one of another kind."""
    if isinstance(change, Several):
        return sum(map(number_of_rows, change.changes))
    return max(1, len(getattr(change, "uids", ())))


def new_rows(
    before: LabelVersion,
    uids: Sequence[str],
    texts: Sequence[str],
    columns: LabelColumns | None,
    origin: pa.Table | None = None,
) -> pa.Table:
    """The rows that labels would add, without their embeddings; InputError where uids or columns do not fit."""
    uids = list(uids)
    rows = label_rows(uids, texts, columns, origin)
    taken = np.flatnonzero(before.index_rows(uids) >= 0)
    if len(taken):
        raise InputError(f"The label {uids[taken[0]]!r} is already there; remove it first, or give another uid.")
    refuse_repeated(uids)
    joined(before.everything.slice(0, 0), rows)  # columns of types that do not fit are refused now
    return rows


def updated_rows(before: LabelVersion, uids: Sequence[str], texts: Sequence[str]) -> Rows:
    """The index rows of labels that would get other texts.

    Raises InputError for a uid that is not there or given twice, and for another number of texts.
    """
    rows = before.known_index_rows(uids)
    refuse_repeated(uids)
    if len(rows) != len(texts):
        raise InputError(f"{len(rows)} uids were given for {len(texts)} label texts.")
    return rows


def remembered_ids(before: LabelVersion, texts: Sequence[str], uids: Sequence[Sequence[str]]) -> list[Ids]:
    """The label ids of each of some judged queries.

    Raises InputError for labels without a memory, a uid that is not there, a bare string in place of a list, and another number
    of lists than of texts.
    """
    if before.memory is None:
        raise InputError(
            "The run has no memory of queries that could remember more; fit one with xmc.fit_memory, or `xmc memory`."
        )
    if isinstance(uids, str) or len(uids) != len(texts):
        raise InputError(
            f"{len(uids)} lists of labels were given for {len(texts)} texts; give a list of uids for each."
        )
    for listed in uids:
        if isinstance(listed, str):
            raise InputError(f"labels must be a list of uids for each text, but one is {listed!r}; put it into a list.")
    rows = before.known_index_rows([uid for listed in uids for uid in dict.fromkeys(listed)])
    lengths = [len(dict.fromkeys(listed)) for listed in uids]
    ids = before.ids_at(rows)
    return np.split(ids, np.cumsum(lengths)[:-1]) if lengths else []


def _extended(before: LabelVersion, rows: pa.Table, ids: Ids, embeddings: Embeddings) -> LabelVersion:
    """With rows behind all others, of living labels with these ids."""
    index = before.index
    embeddings = require_matrix(embeddings, index.dimension, "label embeddings")
    if len(embeddings) != len(rows):
        raise InputError(f"{len(embeddings)} embeddings were given for {len(rows)} labels.")
    if not len(rows):
        return replace(before, everything=joined(before.everything, rows))
    return replace(
        before,
        everything=joined(before.everything, rows),
        all_ids=before.all_ids.append(ids),
        lookup=before.lookup.with_rows(rows["uid"].to_pylist(), len(before.all_ids)),
        held=index.append(embeddings),
    )
