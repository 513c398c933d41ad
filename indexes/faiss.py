"""Any FAISS index, named by its factory string, over label embeddings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xmc.errors import ConfigError, DependencyError, InputError, StoreError
from xmc.indexes.base import Embeddings, ExcludedRows, LabelIndex, Rows
from xmc.indexes.exact import exact_search

try:
    import faiss
except ImportError:
    faiss = None  # type: ignore[assignment]

__all__ = ["FaissIndex"]

COMPACT_SHARE = 0.1
"""Removed labels stay in the FAISS index, and are left out of results, until they are more than this share of it."""


class FaissIndex(LabelIndex):
    """Approximate (or, with "Flat", exact) search by FAISS, inner product.

    factory: any string of faiss.index_factory, such as "Flat", "HNSW32", "IVF256,Flat", "IVF256,PQ16" or "SQ8".
    parameters: search-time parameters by FAISS's names, such as {"nprobe": 16} or {"efSearch": 64}; by default nprobe is
        twice the root of the number of lists, and efSearch 128.

    The float32 embeddings are kept beside the FAISS index (memory-mapped when loaded): a query for which exclusion or
    removal leaves too few candidates is answered exactly from them, and compaction rebuilds from them.
    """

    kind: ClassVar[str] = "faiss"

    def __init__(self, dimension: int, factory: str, parameters: dict[str, float] | None = None) -> None:
        super().__init__(dimension)
        if faiss is None:
            raise DependencyError(
                'No faiss is installed, which the index design needs. Run: pip install "xmc[cpu]" '
                '(or "xmc[gpu]" on a machine with CUDA); the design "exact" works without it.'
            )
        self.factory = factory
        self.parameters = parameters
        self._index = self._empty()
        self._row_at: Rows = np.zeros(0, np.int64)  # FAISS position to row, -1 for a removed label

    def _build(self, embeddings: Embeddings) -> None:
        index = self._empty()
        if len(embeddings):
            try:
                if not index.is_trained:
                    index.train(embeddings)
                index.add(embeddings)
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[-1]
                raise InputError(
                    f"The index design {self.factory!r} cannot be built over {len(embeddings)} labels of dimension "
                    f"{self.dimension}: {reason}. Use a smaller design, or exact."
                ) from error
        self._tune(index)
        self._index, self._row_at = index, np.arange(len(embeddings))

    def _add(self, embeddings: Embeddings, first: int) -> None:
        if not self._index.is_trained:
            self._build(embeddings)
            return
        if not self._index.ntotal:
            self._refill(embeddings)
            return
        try:
            self._index.add(np.ascontiguousarray(embeddings[first:]))
        except RuntimeError:  # a design that can only be filled once, such as NSG
            self._refill(embeddings)
        else:
            self._row_at = np.concatenate([self._row_at, np.arange(first, len(embeddings))])

    def _remove(self, embeddings: Embeddings, kept: npt.NDArray[np.bool_]) -> None:
        new_row = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
        self._row_at = new_row[self._row_at]
        if len(self._row_at) - len(embeddings) > COMPACT_SHARE * len(self._row_at):
            self._refill(embeddings)

    def _refill(self, embeddings: Embeddings) -> None:
        """Put these embeddings in the place of all others; what was trained stays, however few they are.

        A design that cannot hold so few (NSG needs 100) is left empty, and the search is exact.
        """
        self._index.reset()
        try:
            if len(embeddings):
                self._index.add(embeddings)
        except RuntimeError:
            self._index.reset()
        self._row_at = np.arange(self._index.ntotal)

    def _search(self, queries: Embeddings, k: int, exclude: ExcludedRows | None) -> tuple[Embeddings, Rows]:
        total = len(self._row_at)
        if not total:
            return exact_search(queries, self.embeddings, k, exclude)
        most_excluded = 0 if exclude is None else int(np.diff(exclude[0]).max())
        removed = total - len(self)
        spare = most_excluded + (math.ceil(2 * k * removed / total) + 8 if removed else 0)
        found_scores, positions = self._index.search(queries, min(total, k + spare))
        rows = np.where(positions >= 0, self._row_at[positions], -1)
        if exclude is not None:
            pairs = np.repeat(np.arange(len(queries)), np.diff(exclude[0])) * len(self) + exclude[1]
            keys = np.arange(len(queries))[:, None] * len(self) + rows
            rows = np.where(np.isin(keys, pairs), -1, rows)
        # Usable candidates first, in their order.
        order = np.argsort(rows < 0, axis=1, kind="stable")[:, :k]
        rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(found_scores, order, 1)
        scores = np.where(rows >= 0, scores, -np.inf).astype(np.float32)
        short = np.flatnonzero((rows < 0).any(axis=1))
        if len(short):
            part = None if exclude is None else _rows_of(exclude, short)
            scores[short], rows[short] = exact_search(queries[short], self.embeddings, k, part)
        return scores, rows.astype(np.int64)

    def _settings(self) -> dict[str, Any]:
        return {"factory": self.factory, "parameters": self.parameters}

    @classmethod
    def _restored(cls, settings: dict[str, Any]) -> FaissIndex:
        return cls(int(settings["dimension"]), str(settings["factory"]), settings.get("parameters"))

    def _save(self, directory: Path) -> None:
        if (self._row_at < 0).any():
            self._refill(self.embeddings)
        faiss.write_index(self._index, str(directory / "index.faiss"))

    def _load(self, directory: Path) -> None:
        try:
            self._index = faiss.read_index(str(directory / "index.faiss"))
        except RuntimeError as error:
            raise StoreError(f"{directory / 'index.faiss'} cannot be read by faiss: {error}") from error
        if self._index.ntotal not in (0, len(self)) or self._index.d != self.dimension:
            raise StoreError(
                f"{directory / 'index.faiss'} holds {self._index.ntotal} vectors of dimension {self._index.d}, "
                f"but the index has {len(self)} labels of dimension {self.dimension}."
            )
        self._row_at = np.arange(self._index.ntotal)
        self._tune(self._index)

    def _empty(self) -> Any:
        try:
            index = faiss.index_factory(self.dimension, self.factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            raise ConfigError(
                f"{self.factory!r} is not an index design that faiss has for inner product in dimension "
                f'{self.dimension}; examples: exact, Flat, HNSW32, "IVF256,Flat", "IVF256,PQ16".'
            ) from error
        if isinstance(index, faiss.IndexIDMap):
            raise ConfigError(f"Leave IDMap out of the index design {self.factory!r}: ids are kept without it.")
        return index

    def _tune(self, index: Any) -> None:
        space = faiss.ParameterSpace()
        for name, value in (_defaults(index) if self.parameters is None else self.parameters).items():
            if name in ("nprobe", "efSearch") and value < 1:
                raise ConfigError(f"The search parameter {name} must be at least 1, but is {value}.")
            try:
                space.set_index_parameter(index, name, value)
            except RuntimeError as error:
                raise ConfigError(f"The index design {self.factory!r} has no search parameter {name!r}.") from error


def _defaults(index: Any) -> dict[str, float]:
    inner = faiss.downcast_index(index)
    while isinstance(inner, (faiss.IndexPreTransform, faiss.IndexRefine)):
        inner = faiss.downcast_index(inner.base_index if isinstance(inner, faiss.IndexRefine) else inner.index)
    if isinstance(inner, faiss.IndexIVF):
        return {"nprobe": min(inner.nlist, math.ceil(2 * math.sqrt(inner.nlist)))}
    return {"efSearch": 128} if isinstance(inner, faiss.IndexHNSW) else {}


def _rows_of(exclude: ExcludedRows, queries: npt.NDArray[np.int64]) -> ExcludedRows:
    """The exclusions of some queries."""
    indptr, rows = exclude
    lists = [rows[indptr[query] : indptr[query + 1]] for query in queries]
    return np.cumsum([0, *map(len, lists)], dtype=np.int64), np.concatenate([np.zeros(0, np.int64), *lists])
