"""Any FAISS index, named by its factory string, over label embeddings."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from xmc.errors import ConfigError, DependencyError, InputError, StoreError
from xmc.indexes.base import LabelIndex
from xmc.indexes.blocks import EmbeddingBlocks, Embeddings, Mask, Rows
from xmc.indexes.library import faiss
from xmc.indexes.snapshot import Engine, Snapshot
from xmc.indexes.threads import shared_threads

__all__ = ["FaissEngine", "FaissIndex", "empty_faiss_index", "parts_of", "set_parameters"]

ADDED = 65_536
"""Rows that are handed to FAISS at a time."""
TRAINING_ROWS = 262_144
"""FAISS learns cells and codebooks from so many rows at most, spread evenly over all."""
LEARN_AGAIN = 4
"""They are learned anew when there are so many times the labels that they were learned from."""
LEAST_GRAPH = 1_000
"""FAISS ends the process where an NSG graph comes out unconnected, as that of a few labels may."""
CELL_ROUNDS = 10
"""Rounds of k-means; more take longer and change recall little."""
GRAPH_EFFORT = 100
"""Candidates for the links of a label in an HNSW graph (efConstruction); FAISS's own 40 gives graphs of low recall."""
POINTS_PER_CELL = 64
"""And the cells of an inverted file from so many for each of them at most."""


class FaissEngine:
    """A FAISS index over the first `covered` rows."""

    exact = False

    def __init__(self, index: Any, learned_from: int, mapped: bool = False) -> None:
        """learned_from: the rows that cells and codebooks were learned from; mapped: the index lies in a file."""
        self.index, self.covered = index, int(index.ntotal)
        self.learned_from, self._mapped = learned_from, mapped
        self._selects = _selects(index)

    def search(self, queries: Embeddings, k: int, allowed: Mask | None, share: float) -> tuple[Embeddings, Rows]:
        """Scores and rows [n, k]; a search under a filter looks into as many more places as fewer labels pass it."""
        if allowed is None:
            with shared_threads():
                scores, rows = self.index.search(queries, k)
        elif self._selects:
            bits = np.packbits(allowed, bitorder="little")
            effort = min(1 / max(share, 1e-9), 100.0)
            with shared_threads():
                scores, rows = self.index.search(queries, k, params=_parameters(self.index, bits, effort))
        else:
            fetch = min(self.covered, math.ceil(1.5 * k / max(share, 1e-9)) + 8)
            with shared_threads():
                scores, rows = self.index.search(queries, fetch)
            rows = np.where((rows >= 0) & allowed[np.maximum(rows, 0)], rows, -1)
            order = np.argsort(rows < 0, axis=1, kind="stable")[:, :k]
            scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        return np.where(rows >= 0, scores, -np.inf).astype(np.float32), rows.astype(np.int64)

    def copy(self) -> Any:
        """A FAISS index with the same content, in memory of its own."""
        if not self._mapped:
            with contextlib.suppress(RuntimeError):  # what FAISS can write but not clone
                return faiss.clone_index(self.index)
        return faiss.deserialize_index(faiss.serialize_index(self.index))


class FaissIndex(LabelIndex):
    """Approximate (or, with "Flat", exact) search by FAISS, inner product.

    factory: any string of faiss.index_factory, such as "Flat", "HNSW32", "IVF256,Flat", "IVF256,PQ16" or "SQ8".
    parameters: search-time parameters by FAISS's names, such as {"nprobe": 16} or {"efSearch": 64}; by default nprobe is
        twice the root of the number of lists, efSearch 128, and k_factor_rf (of a "Refine" stage) 8.
    rescore: see LabelIndex.search.

    The float32 embeddings are kept beside the FAISS index (memory-mapped when loaded): for re-scoring, for searches that
    few labels may answer, and for compaction.
    """

    kind: ClassVar[str] = "faiss"

    def __init__(
        self, dimension: int, factory: str, parameters: dict[str, float] | None = None, rescore: int = 0
    ) -> None:
        super().__init__(dimension, rescore)
        self._learns = not empty_faiss_index(factory, dimension).is_trained
        self.factory, self.parameters = factory, parameters

    def engine_of(self, embeddings: EmbeddingBlocks) -> FaissEngine:
        """See LabelIndex."""
        index = empty_faiss_index(self.factory, self.dimension)
        set_parameters(index, self.factory, self.parameters)
        try:
            if not index.is_trained:
                with shared_threads():
                    index.train(_spread(embeddings, TRAINING_ROWS))
            _fill(index, embeddings, 0)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(
                f"The index design {self.factory!r} cannot be built over {len(embeddings)} labels of dimension "
                f"{self.dimension}: {reason}. Use a smaller design, or exact."
            ) from error
        set_parameters(index, self.factory, self.parameters)
        return FaissEngine(index, len(embeddings))

    def adopt(self, snapshot: Snapshot, engine: Engine | None = None) -> None:
        """See LabelIndex."""
        if isinstance(engine, FaissEngine):
            set_parameters(engine.index, self.factory, self.parameters)
        super().adopt(snapshot, engine)

    def _grown(self, engine: Engine, embeddings: EmbeddingBlocks) -> Engine | None:
        assert isinstance(engine, FaissEngine)
        if engine.learned_from < min(len(embeddings) / LEARN_AGAIN, TRAINING_ROWS) and self._learns:
            return self.engine_of(embeddings)
        copy = engine.copy()
        try:
            _fill(copy, embeddings, engine.covered)
        except RuntimeError:  # a design that can only be filled once, such as NSG
            return self._recast(engine, embeddings)
        return FaissEngine(copy, engine.learned_from)

    def _recast(self, engine: Engine, embeddings: EmbeddingBlocks) -> Engine | None:
        """None for a design that cannot hold so few (NSG needs 100): the search is exact."""
        assert isinstance(engine, FaissEngine)
        copy = engine.copy()
        copy.reset()
        try:
            _fill(copy, embeddings, 0)
        except RuntimeError:
            return None
        return FaissEngine(copy, engine.learned_from)

    def _settings(self) -> dict[str, Any]:
        return {"factory": self.factory, "parameters": self.parameters}

    @classmethod
    def _restored(cls, settings: dict[str, Any]) -> FaissIndex:
        parameters = settings.get("parameters")
        return cls(int(settings["dimension"]), str(settings["factory"]), parameters, int(settings["rescore"]))

    def _save(self, engine: Engine, directory: Path) -> None:
        assert isinstance(engine, FaissEngine)
        try:
            faiss.write_index(engine.index, str(directory / "index.faiss"))
        except RuntimeError as error:
            raise OSError(str(error)) from error

    def _load(self, directory: Path, covered: int) -> FaissEngine:
        file = directory / "index.faiss"
        try:
            index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise StoreError(f"{file} cannot be read by faiss: {error}") from error
        if index.ntotal != covered or index.d != self.dimension:
            raise StoreError(
                f"{file} holds {index.ntotal} vectors of dimension {index.d}, "
                f"but the index has {covered} labels of dimension {self.dimension}."
            )
        set_parameters(index, self.factory, self.parameters)
        return FaissEngine(index, covered, mapped=True)


def empty_faiss_index(factory: str, dimension: int) -> Any:
    """faiss.index_factory for inner product; ConfigError for a design it does not have, DependencyError without FAISS."""
    if faiss is None:
        raise DependencyError(
            'No faiss is installed, which the index design needs. Run: pip install "xmc[cpu]" '
            '(or "xmc[gpu]" on a machine with CUDA); the design "exact" works without it.'
        )
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"{factory!r} is not an index design that faiss has for inner product in dimension "
            f'{dimension}; examples: exact, Flat, HNSW32, "IVF256,Flat", "IVF256,PQ16".'
        ) from error
    if isinstance(index, faiss.IndexIDMap):
        raise ConfigError(f"Leave IDMap out of the index design {factory!r}: ids are kept without it.")
    for part in parts_of(index):
        if isinstance(part, faiss.IndexIVF):
            part.cp.min_points_per_centroid, part.cp.max_points_per_centroid = 1, POINTS_PER_CELL
            part.cp.niter = CELL_ROUNDS
        elif isinstance(part, faiss.IndexHNSW):
            part.hnsw.efConstruction = GRAPH_EFFORT
    return index


def set_parameters(index: Any, factory: str, parameters: dict[str, float] | None) -> None:
    """Set search-time parameters by FAISS's names; ConfigError for one that the design lacks or a value below 1."""
    space = faiss.ParameterSpace()
    for name, value in (_defaults(index) if parameters is None else parameters).items():
        if value < 1:
            raise ConfigError(f"The search parameter {name} must be at least 1, but is {value}.")
        try:
            space.set_index_parameter(index, name, value)
        except RuntimeError as error:
            raise ConfigError(f"The index design {factory!r} has no search parameter {name!r}.") from error


def parts_of(index: Any) -> list[Any]:
    """The FAISS index, and what it wraps, from the outside in."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return [index, *parts_of(index.index)]
    if isinstance(index, faiss.IndexRefine):
        return [index, *parts_of(index.base_index)]
    return [index]


def _defaults(index: Any) -> dict[str, float]:
    *outer, inner = parts_of(index)
    found: dict[str, float] = {}
    if any(isinstance(part, faiss.IndexRefine) for part in outer):
        found["k_factor_rf"] = 8
    if isinstance(inner, faiss.IndexIVF):
        found["nprobe"] = min(inner.nlist, math.ceil(2 * math.sqrt(inner.nlist)))
    elif isinstance(inner, faiss.IndexHNSW):
        found["efSearch"] = 128
    return found


def _parameters(index: Any, bits: Any, effort: float) -> Any:
    """FAISS's parameters for one search: the index's own, with `effort` times the places looked into, under a filter."""
    *outer, inner = parts_of(index)
    selector = faiss.IDSelectorBitmap(bits)
    if isinstance(inner, faiss.IndexIVF):
        probes = min(inner.nlist, math.ceil(inner.nprobe * effort))
        kind = faiss.IVFPQSearchParameters if isinstance(inner, faiss.IndexIVFPQ) else faiss.SearchParametersIVF
        found = kind(sel=selector, nprobe=probes)
    elif isinstance(inner, faiss.IndexHNSW):
        found = faiss.SearchParametersHNSW(sel=selector, efSearch=math.ceil(inner.hnsw.efSearch * effort))
    elif isinstance(inner, faiss.IndexRaBitQ):
        found = faiss.RaBitQSearchParameters(sel=selector, qb=inner.qb, centered=inner.centered)
    else:
        found = faiss.SearchParameters(sel=selector)
    for part in reversed(outer):
        if isinstance(part, faiss.IndexPreTransform):
            found = faiss.SearchParametersPreTransform(index_params=found)
        else:
            found = faiss.IndexRefineSearchParameters(k_factor=part.k_factor, base_index_params=found)
    return found


def _selects(index: Any) -> bool:
    """Whether FAISS can filter in a search of this design; otherwise it is left to us to ask for more and drop."""
    if not index.ntotal:
        return False
    try:
        index.search(np.zeros((1, index.d), np.float32), 1, params=_parameters(index, np.full(1, 255, np.uint8), 1.0))
    except RuntimeError:
        return False
    return True


def _fill(index: Any, embeddings: EmbeddingBlocks, first: int) -> None:
    """Add the rows from `first` on; designs that are filled once get them in one call."""
    rest = embeddings.since(first)
    if not len(rest):
        return
    whole = isinstance(parts_of(index)[-1], (faiss.IndexNSG, faiss.IndexNNDescent))
    if whole and len(rest) < LEAST_GRAPH:
        raise RuntimeError(f"a graph of this kind needs {LEAST_GRAPH:,} labels")
    with shared_threads():
        for _, block in EmbeddingBlocks([rest.whole()]) if whole else rest:
            step = len(block) if whole else ADDED
            for start in range(0, len(block), step):
                index.add(np.ascontiguousarray(block[start : start + step]))


def _spread(embeddings: EmbeddingBlocks, most: int) -> Embeddings:
    """At most so many rows, at even distances."""
    if len(embeddings) <= most:
        return embeddings.whole()
    return embeddings.take(np.linspace(0, len(embeddings) - 1, most).astype(np.int64))
