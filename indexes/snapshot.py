"""What an index holds at one moment, and every search over it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from xmc.errors import InputError
from xmc.indexes.blocks import EmbeddingBlocks, Embeddings, Mask, Rows
from xmc.indexes.checks import require_count, require_matrix
from xmc.indexes.diversity import diversify
from xmc.indexes.identifiers import Ids, RowLookup
from xmc.indexes.scan import best_of, exact_search, score_rows
from xmc.indexes.selection import Labels, PerQuery, Selection, select

__all__ = ["Engine", "Snapshot"]

SCANNED = 100_000
"""So few allowed labels are scored one by one: an approximate search would find few of them."""
OVER_FETCHED = 1_000
"""A query that excludes so many labels of its own, or fewer, is answered by dropping them from a longer result."""
DIVERSITY_POOL = 5
"""Candidates for each label asked for, from which a diverse result is chosen."""


class Engine(Protocol):
    """Search over the first `covered` rows; it never changes.

    exact: whether it finds the best for certain, under any filter.
    """

    covered: int
    exact: bool

    def search(self, queries: Embeddings, k: int, allowed: Mask | None, share: float) -> tuple[Embeddings, Rows]:
        """Scores and rows [n, k], best first, -1 where fewer are found; of the allowed rows, a `share` of all."""


@dataclass(frozen=True)
class Snapshot:
    """The labels of an index at one moment. It never changes, and any number of threads may search it.

    version: higher after each change.
    Rows are numbered in the order in which they came; removed ones keep theirs until the index is compacted.
    """

    version: int
    all_ids: Ids
    blocks: EmbeddingBlocks
    alive: Mask | None
    lookup: RowLookup
    engine: Engine | None
    rescore: int = 0

    def __len__(self) -> int:
        """Number of labels."""
        return self._living

    @cached_property
    def ids(self) -> Ids:
        """int64 or strings [L], in the order in which they came."""
        return self.all_ids if self.alive is None else self.all_ids[self.alive]

    @cached_property
    def embeddings(self) -> Embeddings:
        """float32 [L, D], in the order of `ids`; a copy where labels were added or removed since the last compaction."""
        return self.blocks.whole() if self.alive is None else self.blocks.take(np.flatnonzero(self.alive))

    def rows(self, ids: Labels) -> Rows:
        """The rows of some ids, in their order, -1 for one that is not there."""
        given: Any = ids
        found = self.lookup.find(given)
        found[found >= len(self.all_ids)] = -1
        if self.alive is not None:
            found[(found >= 0) & ~self.alive[found]] = -1
        return found

    def vectors(self, ids: Labels) -> Embeddings:
        """The embeddings float32 [n, D] of some labels; InputError for an id that is not there."""
        rows = self.rows(ids)
        if (rows < 0).any():
            missing = list(ids)[int(np.flatnonzero(rows < 0)[0])]
            raise InputError(f"The label id {missing!r} is not in the index ({int((rows < 0).sum())} such ids).")
        return self.blocks.take(rows)

    def search(
        self,
        queries: Embeddings,
        k: int,
        *,
        include: Labels | PerQuery | None = None,
        exclude: Labels | PerQuery | None = None,
        rescore: int | None = None,
        diversity: float = 0.0,
    ) -> tuple[Ids, Embeddings]:
        """See LabelIndex.search."""
        queries = require_matrix(queries, self.blocks.dimension, "queries")
        k = require_count(k, "k")
        factor = self.rescore if rescore is None else require_count(rescore, "rescore")
        if not 0 <= diversity <= 1:
            raise InputError(f"diversity must lie between 0 and 1, but is {diversity}.")
        selection = Selection(self.alive, len(self))
        if include is not None or exclude is not None:
            selection = select(include, exclude, len(queries), len(self.all_ids), self.alive, self.lookup)
        k = min(k, len(self))
        if not (len(queries) and k):
            scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        elif diversity:
            scores, rows = self._select(queries, min(DIVERSITY_POOL * k, len(self)), selection, factor)
            scores, rows = diversify(self.blocks, scores, rows, k, diversity)
        else:
            scores, rows = self._select(queries, k, selection, factor)
        found: Any = np.full(rows.shape, "" if self.all_ids.dtype == object else -1, self.all_ids.dtype)
        found[rows >= 0] = self.all_ids[rows[rows >= 0]]
        return found, scores

    @cached_property
    def _living(self) -> int:
        return len(self.all_ids) if self.alive is None else int(self.alive.sum())

    def _select(self, queries: Embeddings, k: int, selection: Selection, factor: int) -> tuple[Embeddings, Rows]:
        """The best rows under a selection, with the lists of single queries."""
        mask, count, include, exclude = selection.mask, selection.count, selection.include, selection.exclude
        if include is None and exclude is None:
            return self._best(queries, k, mask, count, factor)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1)
        together = np.zeros(0, np.int64)
        if include is None and exclude is not None:
            together = np.flatnonzero([len(part) <= OVER_FETCHED for part in exclude])
        if exclude is not None and len(together):
            dropped = [exclude[query] for query in together]
            fetch = min(len(self), k + max(map(len, dropped)))
            found = self._best(queries[together], fetch, mask, count, factor)
            scores[together], rows[together] = _without(*found, dropped, k)
        for query in np.setdiff1d(np.arange(len(queries)), together):
            own = np.ones(len(self.all_ids), bool) if mask is None else mask.copy()
            if include is not None:
                chosen = np.zeros(len(own), bool)
                chosen[include[query]] = True
                own &= chosen
            if exclude is not None:
                own[exclude[query]] = False
            scores[query], rows[query] = self._best(queries[[query]], k, own, int(own.sum()), factor)
        return scores, rows

    def _best(self, queries: Embeddings, k: int, mask: Mask | None, count: int, factor: int) -> tuple[Embeddings, Rows]:
        """The best of the rows that a mask lets pass: by the engine, and exactly what it does not cover."""
        engine = self.engine
        if engine is None or not engine.covered:
            return exact_search(queries, self.blocks, k, mask)
        if not engine.exact and count <= min(SCANNED, len(self.all_ids) // 2):
            return exact_search(queries, self.blocks, k, mask)
        covered = None if mask is None else mask[: engine.covered]
        inside = engine.covered if covered is None else int(covered.sum())
        fetch = min(k * max(1, factor), inside)
        scores, rows = engine.search(queries, fetch, covered, inside / engine.covered)
        if factor:
            scores = score_rows(queries, self.blocks, rows)
        rest = self.blocks.since(engine.covered)
        behind = exact_search(queries, rest, k, None if mask is None else mask[engine.covered :])
        parts = [(scores, rows), (behind[0], np.where(behind[1] >= 0, behind[1] + engine.covered, -1))]
        scores, rows = best_of(parts, k)
        short = np.flatnonzero((rows >= 0).sum(axis=1) < min(k, count))
        if len(short):
            scores[short], rows[short] = exact_search(queries[short], self.blocks, k, mask)
        return scores, rows


def _without(scores: Embeddings, rows: Rows, dropped: list[Rows], k: int) -> tuple[Embeddings, Rows]:
    """The first k columns that are left of each row."""
    for query, gone in enumerate(dropped):
        out = np.isin(rows[query], gone)
        rows[query, out], scores[query, out] = -1, -np.inf
    order = np.argsort(rows < 0, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
