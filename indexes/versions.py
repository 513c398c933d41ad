"""What an index holds at one moment, every search over it, and the changes that make another."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xmc.arrays import Embeddings, Mask, Rows
from xmc.cached import cached_property
from xmc.errors import InputError
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.checks import require_count, require_matrix, require_rows
from xmc.indexes.contract import Design, Devices, Engine
from xmc.indexes.diversity import diversify
from xmc.indexes.scan import best_of, exact_search, first_found, score_rows

__all__ = ["IndexVersion"]

TAIL = 8_192
"""Rows beyond the engine's are searched exactly, until their number is more than this."""
COMPACT_SHARE = 0.25
"""Removed rows are left out of results, and forgotten when they are more than this share of all rows."""
SCANNED = 100_000
"""Allowed rows up to this number are scored one by one: an approximate search would find few of them."""
OVER_FETCHED = 1_000
"""A query with up to this number of excluded rows is answered by dropping them from a longer result."""
DIVERSITY_POOL = 5
"""Candidates for each row asked for, from which a diverse result is chosen."""


@dataclass(frozen=True, eq=False)
class IndexVersion:
    """Rows of embeddings and an engine over the first of them. It never changes; any number of threads may search it.

    `append`, `remove` and `compact` give another version. Rows are numbered in the order in which they came and keep their
    numbers until `compact`, which numbers the living anew.

    alive: bool [rows]; None where none was removed.
    engine: over rows below its `covered`; those beyond are scanned. None where all are.
    rescore: for k results, this multiple of k candidates is taken from the engine and ordered by exact scores; 0: no such step.
    devices: where the engine runs. measured: what tuning measured of the design.
    """

    design: Design
    blocks: EmbeddingBlocks
    alive: Mask | None = None
    engine: Engine | None = None
    rescore: int = 0
    devices: Devices = ()
    measured: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_embeddings(
        cls, design: Design, embeddings: EmbeddingBlocks, rescore: int = 0, devices: Devices = ()
    ) -> IndexVersion:
        """Build an engine over embeddings that are finite; InputError for too few of them."""
        engine = design.build(embeddings, devices) if len(embeddings) else None
        return cls(design, embeddings, None, engine, require_count(rescore, "rescore"), devices)

    def __len__(self) -> int:
        """Number of living rows."""
        return self._living

    def __repr__(self) -> str:
        """Number of rows, dimension, design and devices."""
        return f"<{type(self).__name__}: {self.describe()}>"

    def describe(self) -> str:
        """Number of living rows, dimension, design and devices, in words."""
        removed = len(self.blocks) - len(self)
        sizes = f"{len(self):,} labels" + (f" ({removed:,} removed ones are kept)" if removed else "")
        where = self.design.where(self.engine, self.devices)
        return f"{sizes}, dimension {self.dimension}, index {self.design.name} on {where}"

    @property
    def dimension(self) -> int:
        """D."""
        return self.blocks.dimension

    @cached_property
    def living(self) -> Rows:
        """The living rows, ascending."""
        return np.arange(len(self.blocks)) if self.alive is None else np.flatnonzero(self.alive)

    @cached_property
    def embeddings(self) -> Embeddings:
        """Of the living rows, float32 [L, D]; a copy where rows were added or removed since the last compaction."""
        return self.blocks.joined() if self.alive is None else self.blocks.take(self.living)

    def append(self, embeddings: Embeddings) -> IndexVersion:
        """With rows behind all others, float32 [n, D], which are copied."""
        alive = None if self.alive is None else np.concatenate([self.alive, np.ones(len(embeddings), bool)])
        return replace(self, blocks=self.blocks.append(embeddings), alive=alive)._extended(TAIL)

    def remove(self, rows: Rows) -> IndexVersion:
        """Without some rows, which keep their numbers."""
        if not len(rows):
            return self
        alive = np.ones(len(self.blocks), bool) if self.alive is None else self.alive.copy()
        alive[rows] = False
        return replace(self, alive=alive)

    @property
    def wants_compaction(self) -> bool:
        """Whether removed rows are more than COMPACT_SHARE of all."""
        return len(self.blocks) - len(self) > COMPACT_SHARE * len(self.blocks)

    def compact(self) -> IndexVersion:
        """Only the living rows, numbered anew: row `i` is what row `living[i]` was."""
        if self.alive is None:
            return self
        blocks = EmbeddingBlocks([self.embeddings])
        engine = None if self.engine is None else self.design.refill(self.engine, blocks, self.devices)
        return replace(self, blocks=blocks, alive=None, engine=engine)

    def completed(self) -> IndexVersion:
        """With an engine over all rows."""
        return self._extended(0)

    def with_design(self, design: Design, rescore: int = 0, engine: Engine | None = None) -> IndexVersion:
        """The same rows, searched by another design; engine: over all of them, built where None."""
        engine = design.build(self.blocks, self.devices) if engine is None and len(self.blocks) else engine
        rescore = require_count(rescore, "rescore")
        return replace(self, design=design, engine=engine, rescore=rescore, measured={})

    def noting(self, measured: dict[str, Any]) -> IndexVersion:
        """The same rows and design, with what was measured of them."""
        return replace(self, measured=measured)

    def placed(self, devices: Devices) -> IndexVersion:
        """The same rows, searched on other devices."""
        if devices == self.devices:
            return self
        return replace(self, engine=self.design.place(self.engine, self.blocks, devices), devices=devices)

    def search(
        self,
        queries: Embeddings,
        k: int,
        *,
        allowed: Mask | None = None,
        include: Sequence[Rows] | None = None,
        exclude: Sequence[Rows] | None = None,
        rescore: int | None = None,
        diversity: float = 0.0,
    ) -> tuple[Embeddings, Rows]:
        """The k best living rows of each query [n, D]: scores and rows [n, k'], best first, k' = min(k, living rows).

        allowed: bool [rows], which rows may be returned for any query. include, exclude: for each query the rows that alone,
            or never, may be returned. The search is right at any selectivity.
        rescore: in place of the index's own. diversity: see LabelIndex.search.

        Where fewer than k' rows may be returned for a query, its row ends with -1 and score -inf.
        Raises InputError for another dimension, NaN or infinite queries, k < 0, and another number of lists than of queries.
        """
        queries = require_matrix(queries, self.blocks.dimension, "queries")
        k = min(require_count(k, "k"), len(self))
        factor = self.rescore if rescore is None else require_count(rescore, "rescore")
        if not 0 <= diversity <= 1:
            raise InputError(f"diversity must lie between 0 and 1, but is {diversity}.")
        for name, lists in (("include", include), ("exclude", exclude)):
            if lists is not None and len(lists) != len(queries):
                raise InputError(f"{name} has {len(lists)} lists of labels for {len(queries)} queries.")
        if allowed is not None and self.alive is not None:
            allowed = allowed & self.alive
        mask = self.alive if allowed is None else allowed
        if not (len(queries) and k):
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        width = min(DIVERSITY_POOL * k, len(self)) if diversity else k
        if include is None and exclude is None:
            scores, rows = self._best(queries, width, mask, factor)
        else:
            scores, rows = self._best_for_each(queries, width, mask, include, exclude, factor)
        return diversify(self.blocks, scores, rows, k, diversity) if diversity else (scores, rows)

    @cached_property
    def _living(self) -> int:
        return len(self.blocks) if self.alive is None else int(self.alive.sum())

    def _extended(self, tail: int) -> IndexVersion:
        """With an engine over all rows, where more than `tail` are beyond the present one's."""
        rows = len(self.blocks)
        if rows - (0 if self.engine is None else self.engine.covered) <= tail:
            return self
        if self.engine is not None:
            return replace(self, engine=self.design.extend(self.engine, self.blocks, self.devices))
        with contextlib.suppress(InputError):  # still too few for the design
            return replace(self, engine=self.design.build(self.blocks, self.devices))
        return self

    def _best_for_each(
        self,
        queries: Embeddings,
        k: int,
        mask: Mask | None,
        include: Sequence[Rows] | None,
        exclude: Sequence[Rows] | None,
        factor: int,
    ) -> tuple[Embeddings, Rows]:
        """The best rows where single queries have lists."""
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1)
        together = np.zeros(0, np.int64)
        if include is None and exclude is not None:
            together = np.flatnonzero([len(excluded) <= OVER_FETCHED for excluded in exclude])
        if exclude is not None and len(together):
            dropped = [exclude[query] for query in together.tolist()]
            fetch = min(len(self), k + max(map(len, dropped)))
            longer_scores, longer_rows = self._best(queries[together], fetch, mask, factor)
            scores[together], rows[together] = _without(longer_scores, longer_rows, dropped, k)
        for query in np.setdiff1d(np.arange(len(queries)), together).tolist():
            permitted = np.ones(len(self.blocks), bool) if mask is None else mask.copy()
            if include is not None:
                chosen = np.zeros(len(permitted), bool)
                chosen[include[query]] = True
                permitted &= chosen
            if exclude is not None:
                permitted[exclude[query]] = False
            scores[query], rows[query] = self._best(queries[[query]], k, permitted, factor)
        return scores, rows

    def _best(self, queries: Embeddings, k: int, mask: Mask | None, factor: int) -> tuple[Embeddings, Rows]:
        """The best of the rows that a mask lets pass: by the engine, and exactly what it does not cover."""
        engine, blocks = self.engine, self.blocks
        if engine is None or not engine.covered:
            return exact_search(queries, blocks, k, mask)
        count = len(self) if mask is self.alive else int(mask.sum())  # type: ignore[union-attr]
        if not engine.exact and count <= min(SCANNED, len(blocks) // 2):
            return exact_search(queries, blocks, k, mask)
        covered = None if mask is None else mask[: engine.covered]
        inside = engine.covered if covered is None else int(covered.sum())
        if not inside:  # FAISS refuses to search for no rows
            return exact_search(queries, blocks, k, mask)
        fetch = min(k * max(1, factor), inside)
        scores, rows = engine.search(queries, fetch, covered, inside / engine.covered)
        require_rows(rows, covered, engine.covered)
        if factor:
            scores = score_rows(queries, blocks, rows)
        behind_scores, behind_rows = exact_search(
            queries, blocks.since(engine.covered), k, None if mask is None else mask[engine.covered :]
        )
        behind_rows = np.where(behind_rows >= 0, behind_rows + engine.covered, -1)
        scores, rows = best_of([(scores, rows), (behind_scores, behind_rows)], k)
        short = np.flatnonzero((rows >= 0).sum(axis=1) < min(k, count))
        if len(short):
            scores[short], rows[short] = exact_search(queries[short], blocks, k, mask)
        return scores, rows


def _without(scores: Embeddings, rows: Rows, dropped: Sequence[Rows], k: int) -> tuple[Embeddings, Rows]:
    """The first k columns that are left of each row."""
    for query, excluded in enumerate(dropped):
        out = np.isin(rows[query], excluded)
        rows[query, out], scores[query, out] = -1, -np.inf
    return first_found(scores, rows, k)
