"""The one store of a retriever's labels: versions that never change, each with the columns and the index of the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import acero
from pyarrow import compute as pc

from xmc.arrays import Embeddings, Ids, Mask, Rows
from xmc.cached import cached_property
from xmc.errors import InputError
from xmc.indexes.blocks import GrowingColumn
from xmc.indexes.identifiers import RowLookup
from xmc.indexes.storage import StoredIndex
from xmc.indexes.versions import IndexVersion
from xmc.search.label_columns import ORIGIN, RESERVED, LabelColumns, label_rows, values_at
from xmc.search.memory.queries import QueryMemory
from xmc.storage.arrow import read_columns
from xmc.storage.parquet import write_parquet

__all__ = ["LabelVersion", "require_same_labels"]


@dataclass(frozen=True, eq=False)
class LabelVersion:
    """Labels at one moment: uid, text, columns of the user's, and what searches their embeddings. It never changes.

    A change (xmc.search.changes) makes the next version, which shares its memory. Each label lies in an *index row*, which is
    a row of `everything`, of `all_ids` and of `held` alike. Index rows never move, until Compacted numbers them anew; removed
    labels keep theirs, and `held.alive` says which those are. What users see are the *rows* of `table`: the labels that are
    not removed, in the same order.

    everything: uid, text and the user's columns by index row, and those of label_columns.ORIGIN where there are labels from
    outside of training; null for removed rows of a run that was loaded.
    all_ids: int64, by index row. next_id: above all ids that were ever given, so that no id comes to mean another label.
    held: the index; None for labels that are only read, such as those of a run whose index is elsewhere.
    number: higher after each change; 0 for labels that are only read.
    memory: judged queries, with the ids of their labels; None where none are remembered.
    """

    everything: pa.Table
    all_ids: GrowingColumn
    next_id: int
    lookup: RowLookup = field(repr=False)
    held: IndexVersion | None = None
    number: int = 1
    memory: QueryMemory | None = None

    @classmethod
    def from_lists(
        cls,
        uids: Sequence[str],
        texts: Sequence[str],
        columns: LabelColumns | None = None,
        held: IndexVersion | None = None,
        origin: pa.Table | None = None,
    ) -> LabelVersion:
        """Labels with ids from 0 on. InputError for columns of another length, or called id, uid or text.

        origin: values of the columns of label_columns.ORIGIN; None where all labels are of training.
        """
        everything = label_rows(uids, texts, columns, origin)
        return cls(everything, GrowingColumn(np.arange(len(uids))), len(uids), _lookup(everything), held)

    @classmethod
    def read(cls, file: Path, next_id: int) -> LabelVersion:
        """What `write` wrote. StoreError where it cannot be read, KeyError or pyarrow's errors where it is something else."""
        table = read_columns(file)
        table = table.select([*RESERVED, *(name for name in table.column_names if name not in RESERVED)])
        types = [pa.int64(), pa.string(), pa.string(), *table.schema.types[len(RESERVED) :]]
        table = table.cast(pa.schema(list(zip(table.column_names, types, strict=True)))).combine_chunks()
        everything = table.drop_columns(["id"])
        return cls(everything, GrowingColumn(table["id"].to_numpy()), next_id, _lookup(everything), number=0)

    def write(self, file: Path) -> None:
        """Write a Parquet file with the columns id, uid, text and the user's; removed labels are left out."""
        own_columns = [name for name in self.table.column_names if name not in RESERVED]
        write_parquet(self.table, file, compression="zstd", use_dictionary=own_columns)  # uids and texts hardly repeat

    def __len__(self) -> int:
        """Number of labels."""
        return len(self.all_ids) if self.held is None else len(self.held)

    def __repr__(self) -> str:
        """Number of labels, columns of the user's, and the index."""
        columns = [name for name in self.columns.names if name not in (*RESERVED, *ORIGIN.names)]
        said = [f"{len(self):,} labels"] if self.held is None else [self.held.describe()]
        said += [f"columns {', '.join(columns)}"] if columns else []
        said += [f"memory of {self.memory.describe()}"] if self.memory is not None else []
        return f"<{type(self).__name__} {self.number}: {', '.join(said)}>"

    @property
    def index(self) -> IndexVersion:
        """The index; InputError for labels that are only read."""
        if self.held is None:
            raise InputError("These labels were read without their index; load the run to search or change them.")
        return self.held

    @property
    def alive(self) -> Mask | None:
        """bool, by index row; None where none is removed."""
        return None if self.held is None else self.held.alive

    @cached_property
    def living(self) -> Rows:
        """The index rows of the labels, ascending."""
        return np.arange(len(self.all_ids)) if self.held is None else self.held.living

    @cached_property
    def ids(self) -> Ids:
        """int64 [L]."""
        values: Ids = self.all_ids.values
        return values if self.alive is None else values[self.alive]

    @property
    def embeddings(self) -> Embeddings:
        """float32 [L, D]."""
        return self.index.embeddings

    @cached_property
    def trained(self) -> Mask | None:
        """Which labels are of training, bool by index row, removed ones among them; None where all are."""
        if ORIGIN.names[0] not in self.everything.column_names:
            return None
        trained: Mask = pc.is_null(self.everything[ORIGIN.names[0]]).to_numpy()
        return trained

    @property
    def scales(self) -> Embeddings:
        """What the vector of each label was scaled by, float32 [L]; 1 for labels of training."""
        if ORIGIN.names[0] not in self.everything.column_names:
            return np.ones(len(self), np.float32)
        scales: Embeddings = pc.fill_null(self.table[ORIGIN.names[0]], 1.0).to_numpy()
        return scales

    @cached_property
    def table(self) -> pa.Table:
        """id, uid, text and the other columns of `everything`, a row for each label."""
        living = self.everything if self.alive is None else self.everything.filter(pa.array(self.alive))
        return living.add_column(0, "id", pa.array(self.ids))

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
        return self.everything.schema

    def index_rows(self, uids: Sequence[str]) -> Rows:
        """The index row of each uid, -1 for one that is not there."""
        return self.lookup.find_living(uids, len(self.all_ids), self.alive)

    def known_index_rows(self, uids: Sequence[str]) -> Rows:
        """As `index_rows`; InputError for a uid that is not there, or for one bare string."""
        if isinstance(uids, str):
            raise InputError("uids must be a list; put a single uid into a list.")
        uids = list(uids)
        rows = self.index_rows(uids)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            raise InputError(f"There is no label {uids[missing[0]]!r} in this retriever ({len(missing)} not found).")
        return rows

    def rows(self, uids: Sequence[str]) -> Rows:
        """The row in `table` of each uid, -1 for one that is not there."""
        return self._table_rows(self.index_rows(uids))

    def known_rows(self, uids: Sequence[str]) -> Rows:
        """As `rows`; InputError for a uid that is not there, or for one bare string."""
        return self._table_rows(self.known_index_rows(uids))

    def rows_of_ids(self, ids: Rows) -> Rows:
        """The row in `table` of each id, of any shape, -1 for one that is not there."""
        ordered, order = self._by_id
        if len(self) == self.next_id and order is None:  # they are the row numbers
            return np.where((ids >= 0) & (ids < len(self)), ids, -1)
        if not len(self):
            return np.full(ids.shape, -1)
        nearest = np.minimum(np.searchsorted(ordered, ids), len(ordered) - 1)
        return np.where(ordered[nearest] == ids, nearest if order is None else order[nearest], -1)

    def index_rows_of_ids(self, ids: Rows) -> Rows:
        """The index row of each id, of any shape, -1 for one that is not there."""
        rows = self.rows_of_ids(ids)
        return rows if self.alive is None or not len(self) else np.where(rows >= 0, self.living[rows], -1)

    def uids_of(self, ids: Rows) -> npt.NDArray[np.object_]:
        """The uid of each id, of any shape; None for one that is not there."""
        return self.uids_at(self.index_rows_of_ids(ids))

    def texts_of(self, rows: Rows) -> list[str]:
        """The texts of some rows of `table`."""
        return [text or "" for text in values_at(self.everything["text"], self.living[rows]).to_pylist()]

    def vectors_of(self, uids: Sequence[str]) -> Embeddings:
        """What labels are searched by, float32 [n, D]; InputError for a uid that is not there, or without the index."""
        rows = self.known_index_rows(uids)
        if self.held is None:
            raise InputError("A Query of labels needs a search that holds their embeddings.")
        return self.held.blocks.take(rows)

    def uids_at(self, index_rows: Rows) -> npt.NDArray[np.object_]:
        """The uid of each index row, of any shape; None for -1."""
        uids = np.full(index_rows.shape, None, object)
        there = index_rows >= 0
        uids[there] = values_at(self.everything["uid"], index_rows[there]).to_pylist()
        return uids

    def ids_at(self, index_rows: Rows) -> Ids:
        """The id of each index row, of any shape; -1 for -1."""
        ids = np.full(index_rows.shape, -1)
        ids[index_rows >= 0] = self.all_ids.values[index_rows[index_rows >= 0]]
        return ids

    def matching(self, condition: pc.Expression) -> Mask:
        """Where a condition over the columns holds, bool by index row; it does not where it is null, or a label is removed.

        Raises InputError, which names the columns, for one that is not there or values of another type.
        """
        plan = [
            acero.Declaration("table_source", acero.TableSourceNodeOptions(self.everything)),
            acero.Declaration("project", acero.ProjectNodeOptions([condition], ["holds"])),
        ]
        try:  # in this thread: those of Arrow may still run where the process ends
            values = acero.Declaration.from_sequence(plan).to_table(use_threads=False)["holds"]
            if values.type != pa.bool_():
                raise TypeError(f"it must evaluate to bool, but evaluates to {values.type}")
        except (pa.ArrowException, TypeError, ValueError) as error:
            there = ", ".join(f"{field.name} ({field.type})" for field in self.columns)
            reason = str(error).splitlines()[0]
            raise InputError(
                f"The condition {condition} does not fit the labels, whose columns are {there}: {reason}"
            ) from error
        holds: Mask = values.fill_null(False).to_numpy()
        return holds if self.alive is None else holds & self.alive

    def with_index(self, held: IndexVersion) -> LabelVersion:
        """The same labels in the same index rows, searched by another index."""
        return replace(self, held=held)

    def remembering(self, memory: QueryMemory | None) -> LabelVersion:
        """The same labels with another memory of queries, or none."""
        return replace(self, memory=memory)

    def compacted(self, held: IndexVersion) -> LabelVersion:
        """The labels alone, without removed ones, in index rows numbered anew; held: an index over `embeddings`."""
        if self.alive is None:
            return self.with_index(held)
        everything = self.everything.filter(pa.array(self.alive)).combine_chunks()
        column, lookup = GrowingColumn(self.ids), _lookup(everything)
        return replace(self, everything=everything, all_ids=column, lookup=lookup, held=held)

    def in_order(self, index_rows: Rows, held: IndexVersion) -> LabelVersion:
        """The labels in some index rows, in that order; held: an index over their embeddings."""
        everything = self.everything.take(pa.array(index_rows)).combine_chunks()
        column = GrowingColumn(self.all_ids.values[index_rows])
        return replace(self, everything=everything, all_ids=column, lookup=_lookup(everything), held=held)

    def only(self, ids: Rows) -> LabelVersion:
        """The labels of some ids alone, of any shape, without the index; -1 and ids that are not there are left out."""
        rows = self.index_rows_of_ids(np.unique(ids))
        rows = rows[rows >= 0]
        everything = self.everything.take(pa.array(rows)).combine_chunks()
        column = GrowingColumn(self.all_ids.values[rows])
        return LabelVersion(everything, column, self.next_id, _lookup(everything), number=self.number)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without the lookup, which is made again."""
        return _restored, (self.everything, self.all_ids, self.next_id, self.held, self.number, self.memory)

    def with_stored(self, stored: StoredIndex) -> LabelVersion:
        """These labels, all of them alive, with a saved index, whose rows may hold removed ones.

        Raises InputError where the index holds other labels, or in another order.
        """
        held = stored.held
        living: Any = stored.ids if held.alive is None else stored.ids[held.alive]
        require_same_labels(self, living, held)
        if held.alive is None:
            return replace(self, held=held, number=1)
        places = np.cumsum(held.alive) - 1
        everything = self.everything.take(pa.array(places, mask=~held.alive))
        column, lookup = GrowingColumn(stored.ids), _lookup(everything)
        return replace(self, everything=everything, all_ids=column, lookup=lookup, held=held, number=1)

    def _table_rows(self, index_rows: Rows) -> Rows:
        if self.alive is None:
            return index_rows
        return np.where(index_rows >= 0, np.searchsorted(self.living, index_rows), -1)

    @cached_property
    def _by_id(self) -> tuple[Ids, Rows | None]:
        """The ids in ascending order, and their rows in `table`; None where they are in that order."""
        if (np.diff(self.ids) > 0).all():
            return self.ids, None
        order = np.argsort(self.ids, kind="stable")
        return self.ids[order], order


def require_same_labels(labels: LabelVersion, ids: Any, index: IndexVersion) -> None:
    """InputError where an index over labels with these ids is not of the same labels, in the same order and dimension."""
    dimension = index.dimension if labels.held is None else labels.held.dimension
    if index.dimension != dimension or not np.array_equal(ids, labels.ids):
        raise InputError(
            f"The index does not belong to these labels: it holds {len(index)} of dimension {index.dimension}, where "
            f"there are {len(labels)} of dimension {dimension}, or others, or in another order."
        )


def _restored(
    everything: pa.Table,
    all_ids: GrowingColumn,
    next_id: int,
    held: IndexVersion | None,
    number: int,
    memory: QueryMemory | None,
) -> LabelVersion:
    return LabelVersion(everything, all_ids, next_id, _lookup(everything), held, number, memory)


def _lookup(everything: pa.Table) -> RowLookup:
    return RowLookup(everything["uid"].to_pylist)
