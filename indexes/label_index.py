"""An index that stands alone: maximum inner product search over label embeddings that carry the user's own ids."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xmc.arrays import Embeddings, Rows
from xmc.cached import cached_property
from xmc.errors import InputError
from xmc.indexes.blocks import EmbeddingBlocks, GrowingColumn
from xmc.indexes.checks import require_matrix
from xmc.indexes.contract import Design, Devices
from xmc.indexes.identifiers import LabelIds, RowLookup, as_ids, type_name
from xmc.indexes.selection import Chosen, ChosenPerQuery, KeyedRows, select
from xmc.indexes.storage import StoredIndex, read_index, write_index
from xmc.indexes.versions import IndexVersion
from xmc.kernels.forks import renew_in_children

__all__ = ["IndexSnapshot", "LabelIndex"]


@dataclass(frozen=True, eq=False)
class IndexSnapshot:
    """The labels of an index at one moment: rows, and the id of each. It never changes; any number of threads may search it."""

    column: GrowingColumn
    lookup: RowLookup
    held: IndexVersion

    @classmethod
    def from_rows(cls, held: IndexVersion, ids: LabelIds) -> IndexSnapshot:
        """Rows with the id of each, removed ones too."""
        return cls(GrowingColumn(ids), RowLookup(ids.tolist), held)

    def __len__(self) -> int:
        """Number of labels."""
        return len(self.held)

    def __repr__(self) -> str:
        """Number of labels, dimension, design and devices."""
        return f"<{type(self).__name__}: {self.held.describe()}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without the lookup, which is made again."""
        return IndexSnapshot.from_rows, (self.held, self.column.values)

    @cached_property
    def ids(self) -> LabelIds:
        """int64 or strings [L], in the order in which they came."""
        values: LabelIds = self.column.values
        return values if self.held.alive is None else values[self.held.alive]

    @property
    def embeddings(self) -> Embeddings:
        """float32 [L, D], in the order of `ids`; a copy where labels were added or removed since the last compaction."""
        return self.held.embeddings

    def rows(self, ids: Any) -> Rows:
        """The rows of some ids, in their order, -1 for one that is not there."""
        return self.lookup.find_living(ids, len(self.column), self.held.alive)

    def vectors(self, ids: Sequence[int | str] | LabelIds) -> Embeddings:
        """The embeddings float32 [n, D] of some labels; InputError for an id that is not there."""
        rows = self.rows(ids)
        if (rows < 0).any():
            missing = list(ids)[int(np.flatnonzero(rows < 0)[0])]
            raise InputError(f"The label id {missing!r} is not in the index ({int((rows < 0).sum())} such ids).")
        return self.held.blocks.take(rows)

    def search(
        self,
        queries: Embeddings,
        k: int,
        *,
        include: Chosen | ChosenPerQuery | None = None,
        exclude: Chosen | ChosenPerQuery | None = None,
        rescore: int | None = None,
        diversity: float = 0.0,
    ) -> tuple[LabelIds, Embeddings]:
        """See LabelIndex.search."""
        queries = require_matrix(queries, self.held.dimension, "queries")
        filters: dict[str, Any] = {}
        if include is not None or exclude is not None:
            labels = KeyedRows(self.rows, len(self.column), self.held.living, "id")
            filters = vars(select(labels, len(queries), include, exclude))
        scores, rows = self.held.search(queries, k, rescore=rescore, diversity=diversity, **filters)
        values = self.column.values
        ids: LabelIds = np.full(rows.shape, "" if values.dtype == object else -1, values.dtype)
        ids[rows >= 0] = values[rows[rows >= 0]]
        return ids, scores

    def appended(self, embeddings: Embeddings, ids: LabelIds) -> IndexSnapshot:
        """With labels behind all others."""
        rows = len(self.column)
        column = self.column.append(ids) if rows else GrowingColumn(ids)
        lookup = self.lookup.with_rows(ids.tolist(), rows) if rows else RowLookup(ids.tolist)
        return IndexSnapshot(column, lookup, self.held.append(embeddings))

    def removed(self, ids: Sequence[int | str] | LabelIds) -> IndexSnapshot:
        """Without labels that are there."""
        return replace(self, held=self.held.remove(self.rows(ids)))

    def compacted(self) -> IndexSnapshot:
        """The same labels in rows that are numbered anew."""
        if self.held.alive is None:
            return self
        return IndexSnapshot.from_rows(self.held.compact(), self.ids)


class LabelIndex:
    """Top-k labels by inner product. Ids are all int64 or all strings, and unique; labels may be added and removed.

    Any number of threads may search while one changes the index: a search sees all of a change or nothing of it, and never
    waits. Changes wait for each other. `snapshot` gives what the index holds at one moment.

    >>> from xmc.indexes.factory import build_index
    >>> index = build_index("exact", dimension=2)
    >>> index.build([[1, 0], [0, 1]], ids=["east", "north"])
    >>> index.search([[0.6, 0.8]], k=1)[0].tolist()
    [['north']]
    """

    def __init__(self, design: Design, rescore: int = 0, devices: Devices = ()) -> None:
        """An empty index; see `build_index`. rescore: see `search`."""
        held = IndexVersion.from_embeddings(design, EmbeddingBlocks.empty(design.dimension), rescore, devices)
        self.renew_locks()
        renew_in_children(self)
        self._snapshot = IndexSnapshot.from_rows(held, np.zeros(0, np.int64))

    def renew_locks(self) -> None:
        """See xmc.kernels.forks.Renewable."""
        self._changing = threading.RLock()

    @classmethod
    def from_version(cls, version: IndexVersion, ids: LabelIds) -> LabelIndex:
        """An index over rows, with the id of each, removed ones too."""
        index = cls(version.design, version.rescore, version.devices)
        index._snapshot = IndexSnapshot.from_rows(version, ids)
        return index

    def __repr__(self) -> str:
        """Number of labels, dimension, design and devices."""
        return f"<{type(self).__name__}: {self._snapshot.held.describe()}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with all that it holds."""
        return LabelIndex.from_version, (self._snapshot.held, self._snapshot.column.values)

    @property
    def design(self) -> Design:
        """How the index searches."""
        return self._snapshot.held.design

    @property
    def devices(self) -> Devices:
        """Where the index runs; () for the processor."""
        return self._snapshot.held.devices

    @property
    def dimension(self) -> int:
        """Of the embeddings."""
        return self._snapshot.held.dimension

    @property
    def rescore(self) -> int:
        """See `search`."""
        return self._snapshot.held.rescore

    @property
    def measured(self) -> dict[str, Any]:
        """What tuning measured of the design; empty for an index that was not tuned."""
        return self._snapshot.held.measured

    @property
    def ids(self) -> LabelIds:
        """Of all labels, int64 or strings [L], in the order in which they came."""
        return self._snapshot.ids

    @property
    def embeddings(self) -> Embeddings:
        """Of all labels, float32 [L, D], in the order of `ids`."""
        return self._snapshot.embeddings

    def __len__(self) -> int:
        """Number of labels."""
        return len(self._snapshot)

    def snapshot(self) -> IndexSnapshot:
        """What the index holds now: later changes do not show in it, and it can be searched as the index itself."""
        return self._snapshot

    def search(
        self,
        queries: Embeddings,
        k: int,
        *,
        include: Chosen | ChosenPerQuery | None = None,
        exclude: Chosen | ChosenPerQuery | None = None,
        rescore: int | None = None,
        diversity: float = 0.0,
    ) -> tuple[LabelIds, Embeddings]:
        """The k best labels of each query [n, D]: ids [n, k'] and float32 scores [n, k'], best first, k' = min(k, labels).

        include, exclude: labels that alone, or never, may be returned: for all queries ids (a list, set or array) or a mask
            bool [labels] in the order of `ids`, or a list with one of these for each query. Ids that are not in the index
            are ignored. The search is right at any selectivity: where few labels are allowed each of them is scored.
        rescore: this multiple of k candidates is taken from the engine and ordered by exact scores; 0 returns the engine's
            order and scores. By default what the index was made with.
        diversity: between 0, the best labels, and 1; trades score against likeness to the labels before it (maximal
            marginal relevance), chosen from five times k candidates. Scores then do not fall from left to right.

        Where fewer than k' labels may be returned for a query, its row ends with id -1 (or "") and score -inf.

        Raises InputError for another dimension, NaN or infinite queries, k < 0, and filters that do not fit.
        """
        return self._snapshot.search(queries, k, include=include, exclude=exclude, rescore=rescore, diversity=diversity)

    def build(self, embeddings: Embeddings, ids: Sequence[int | str] | LabelIds) -> None:
        """Replace the content by `embeddings` [L, D] float32, which must not change afterwards, with `ids` [L].

        Raises InputError for shapes that do not fit, NaN or infinite embeddings (with their rows), ids of mixed type or
        given twice, or too few labels for the index's design.
        """
        embeddings, new = self._checked(embeddings, ids)
        with self._changing:
            blocks = EmbeddingBlocks([embeddings])
            held = IndexVersion.from_embeddings(self.design, blocks, self.rescore, self.devices)
            self._snapshot = IndexSnapshot.from_rows(held, new)

    def add(self, embeddings: Embeddings, ids: Sequence[int | str] | LabelIds) -> None:
        """Add labels; raises InputError as `build`, and for an id that is there already.

        An index that was never built is searched exactly until it has enough labels for its design.
        """
        embeddings, new = self._checked(embeddings, ids)
        if not len(new):
            return
        with self._changing:
            self._require(new, present=False)
            self._snapshot = self._snapshot.appended(embeddings, new)

    def remove(self, ids: Sequence[int | str] | LabelIds) -> None:
        """Remove labels; raises InputError for an id that is not there."""
        gone = list(dict.fromkeys(as_ids(ids).tolist()))
        if not gone:
            return
        with self._changing:
            self._require(gone, present=True)
            self._take(self._snapshot.removed(gone))

    def update(self, embeddings: Embeddings, ids: Sequence[int | str] | LabelIds) -> None:
        """Give labels new embeddings, in one step; they come last in the order of `ids`.

        Raises InputError as `build`, and for an id that is not there.
        """
        embeddings, new = self._checked(embeddings, ids)
        if not len(new):
            return
        with self._changing:
            self._require(new, present=True)
            self._take(self._snapshot.removed(new).appended(embeddings, new))

    def compact(self) -> None:
        """Forget removed labels, and extend the engine to all others; searches go on meanwhile."""
        with self._changing:
            after = self._snapshot.compacted()
            self._snapshot = replace(after, held=after.held.completed())

    def save(self, directory: str | Path, source: str = "") -> None:
        """Write the index as a stored directory: whole or not at all. Removed labels are kept there until `compact`.

        source: a fingerprint of what the embeddings were made from, which `load_index` can demand.
        """
        snapshot = self._snapshot
        write_index(Path(directory), StoredIndex(snapshot.held, snapshot.column.values), source)

    @classmethod
    def load(cls, directory: str | Path, source: str | None = None, device: str | Sequence[str] = "auto") -> LabelIndex:
        """Read an index written by `save`; see `load_index`."""
        stored = read_index(Path(directory), source, device)
        return cls.from_version(stored.held, stored.ids)

    def _take(self, snapshot: IndexSnapshot) -> None:
        """Hold a snapshot, compacted where too many of its rows are removed."""
        self._snapshot = snapshot.compacted() if snapshot.held.wants_compaction else snapshot

    def _checked(self, embeddings: Embeddings, ids: Sequence[int | str] | LabelIds) -> tuple[Embeddings, LabelIds]:
        embeddings = require_matrix(embeddings, self.dimension, "label embeddings")
        array = as_ids(ids)
        if len(array) != len(embeddings):
            raise InputError(f"{len(array)} ids were given for {len(embeddings)} label embeddings.")
        values, counts = np.unique(array, return_counts=True)
        if (counts > 1).any():
            raise InputError(f"The label id {values[counts > 1].tolist()[0]!r} is given more than once.")
        return embeddings, array

    def _require(self, ids: Sequence[int | str] | LabelIds, present: bool) -> None:
        """InputError where an id is there and should not be, or the other way round."""
        snapshot = self._snapshot
        known: LabelIds = snapshot.column.values
        if isinstance(ids, np.ndarray) and len(snapshot) and ids.dtype != known.dtype:
            raise InputError(f"New ids are of type {type_name(ids)}, those in the index of type {type_name(known)}.")
        wrong = np.flatnonzero((snapshot.rows(ids) >= 0) != present)
        if len(wrong):
            label = ids.tolist()[wrong[0]] if isinstance(ids, np.ndarray) else ids[wrong[0]]
            there = "is not in the index" if present else "is in the index already"
            raise InputError(f"The label id {label!r} {there} ({len(wrong)} such ids).")
