"""Any FAISS index, named by its factory string, over label embeddings: on the processor, or on GPUs where FAISS has a class."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from xmc.arrays import Embeddings, Mask, Rows
from xmc.errors import InputError, StoreError
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.checks import require_rows
from xmc.indexes.contract import Design, Devices, Engine
from xmc.indexes.engines.faiss_checks import read_faiss_index, require_design
from xmc.indexes.engines.faiss_gpu import GpuFaissEngine
from xmc.indexes.engines.faiss_parts import (
    bytes_of,
    can_select,
    empty_faiss_index,
    learning_quietly,
    parts_of,
    search_parameters,
    set_parameters,
)
from xmc.indexes.engines.faiss_sizes import TRAINING_ROWS, require_modest_parameters
from xmc.indexes.engines.gpu_resources import gpu_numbers
from xmc.indexes.library import faiss
from xmc.indexes.scan import first_found
from xmc.indexes.threads import shared_threads
from xmc.progress import progress

__all__ = ["STORAGES", "FaissDesign", "FaissEngine", "GpuFaissEngine", "factory_of"]

STORAGES = {"float32": "Flat", "float16": "SQfp16", "int8": "SQ8", "binary": "RaBitQ"}
"""Designs that score every label, by how they store an embedding: 4, 2, 1 and about 1/8 bytes for each dimension."""
ADDED = 65_536
"""Rows that are handed to FAISS at a time."""
LEARN_AGAIN = 4
"""They are learned anew when the number of labels is this multiple of the number that they were learned from."""
LEAST_GRAPH = 1_000
"""FAISS ends the process where an NSG graph comes out unconnected, as that of a few labels may."""
FILE = "index.faiss"

Change = Callable[[Engine, EmbeddingBlocks, Devices], "Engine | None"]


class FaissEngine:
    """A FAISS index over the first `covered` rows."""

    exact = False

    def __init__(self, index: Any, learned_from: int, mapped: bool = False) -> None:
        """learned_from: the rows that cells and codebooks were learned from; mapped: the index lies in a file."""
        self.index, self.covered = index, int(index.ntotal)
        self.learned_from, self._mapped = learned_from, mapped
        self._selects = can_select(index)

    def search(self, queries: Embeddings, k: int, allowed: Mask | None, share: float) -> tuple[Embeddings, Rows]:
        """Scores and rows [n, k]; a search under a filter looks into more places the fewer labels pass it."""
        if allowed is None:
            with shared_threads():
                scores, rows = self.index.search(queries, k)
        elif self._selects:
            bits = np.packbits(allowed, bitorder="little")
            effort = min(1 / max(share, 1e-9), 100.0)
            with shared_threads():
                scores, rows = self.index.search(queries, k, params=search_parameters(self.index, bits, effort))
        else:
            fetch = min(self.covered, math.ceil(1.5 * k / max(share, 1e-9)) + 8)
            with shared_threads():
                scores, rows = self.index.search(queries, fetch)
            require_rows(rows, None, self.covered)
            rows = np.where((rows >= 0) & allowed[np.maximum(rows, 0)], rows, -1)
            scores, rows = first_found(scores, rows, k)
        return np.where(rows >= 0, scores, -np.inf).astype(np.float32), rows.astype(np.int64)

    def set_parameters(self, factory: str, parameters: dict[str, float] | None) -> None:
        """Search-time parameters by FAISS's names; ConfigError for one that the design lacks, or a value below 1."""
        set_parameters(self.index, factory, parameters)

    def copy(self) -> Any:
        """A FAISS index with the same content, in memory of its own."""
        if not self._mapped:
            with contextlib.suppress(RuntimeError):  # what FAISS can write but not clone
                clone = faiss.clone_index(self.index)
                if type(clone) is type(self.index):  # a CAGRA graph is cloned as HNSW
                    return clone
        return faiss.deserialize_index(faiss.serialize_index(self.index))


class FaissDesign(Design):
    """Approximate (or, with "Flat", exact) search by FAISS, inner product.

    name: a storage of STORAGES, or any string of faiss.index_factory, such as "Flat", "HNSW32", "IVF256,Flat",
        "IVF256,PQ16" or "SQ8", which `factory` holds.
    parameters: search-time parameters by FAISS's names, such as {"nprobe": 16} or {"efSearch": 64}; by default nprobe is
        twice the root of the number of lists, efSearch 128, and k_factor_rf (of a "Refine" stage) 8.

    Raises ConfigError for a string that FAISS does not know, DependencyError where FAISS is not installed.
    """

    kind: ClassVar[str] = "faiss"

    def __init__(self, dimension: int, name: str, parameters: dict[str, float] | None = None) -> None:
        self.dimension, self.factory, self.parameters = dimension, factory_of(name), parameters
        self._learns = not empty_faiss_index(self.factory, dimension).is_trained
        self.name = self.factory

    @classmethod
    def from_name(cls, name: str, dimension: int) -> FaissDesign:
        """See Design; the prefix "faiss:" may be left out."""
        return cls(dimension, name.removeprefix("faiss:") if isinstance(name, str) else name)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> FaissDesign:
        """See Design."""
        parameters = settings.get("parameters")
        require_modest_parameters({} if parameters is None else dict(parameters))
        return cls(int(settings["dimension"]), str(settings["factory"]), parameters)

    def settings(self) -> dict[str, Any]:
        """See Design."""
        return {"factory": self.factory, "parameters": self.parameters}

    def build(self, embeddings: EmbeddingBlocks, devices: Devices) -> FaissEngine | GpuFaissEngine:
        """See Design."""
        index = empty_faiss_index(self.factory, self.dimension)
        set_parameters(index, self.factory, self.parameters)
        numbers = gpu_numbers(devices)
        if len(numbers) == 1 and len(embeddings):
            training = _spread(embeddings, 0 if index.is_trained else TRAINING_ROWS)
            built = GpuFaissEngine.from_embeddings(index, training, embeddings, numbers[0])
            if built is not None:
                return built
        try:
            if not index.is_trained:
                learning = progress(f"learning the cells and codebooks of {self.factory}")
                with learning, shared_threads(), learning_quietly(index):
                    index.train(_spread(embeddings, TRAINING_ROWS))
            _fill(index, embeddings, 0)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(
                f"The index design {self.factory!r} cannot be built over {len(embeddings)} labels of dimension "
                f"{self.dimension}: {reason}. Use a smaller design, or exact."
            ) from error
        set_parameters(index, self.factory, self.parameters)
        return self._placed(FaissEngine(index, len(embeddings)), devices)

    def extend(self, engine: Engine, embeddings: EmbeddingBlocks, devices: Devices) -> Engine | None:
        """See Design; cells and codebooks are learned again where there are many more labels than before."""
        assert isinstance(engine, (FaissEngine, GpuFaissEngine))
        if engine.learned_from < min(len(embeddings) / LEARN_AGAIN, TRAINING_ROWS) and self._learns:
            return self.build(embeddings, devices)
        if isinstance(engine, GpuFaissEngine):
            extended = engine.extended(embeddings)
            return self._elsewhere(self.extend, engine, embeddings, devices) if extended is None else extended
        copy = engine.copy()
        try:
            _fill(copy, embeddings, engine.covered)
        except RuntimeError:  # a design that can only be filled once, such as NSG
            return self.refill(engine, embeddings, devices)
        return FaissEngine(copy, engine.learned_from)

    def refill(self, engine: Engine, embeddings: EmbeddingBlocks, devices: Devices) -> Engine | None:
        """See Design; None for a design that cannot hold a few (NSG needs 100): the search is exact."""
        if isinstance(engine, GpuFaissEngine):
            return self._elsewhere(self.refill, engine, embeddings, devices)
        assert isinstance(engine, FaissEngine)
        copy = engine.copy()
        copy.reset()
        try:
            _fill(copy, embeddings, 0)
        except RuntimeError:
            return None
        return FaissEngine(copy, engine.learned_from)

    def place(self, engine: Engine | None, embeddings: EmbeddingBlocks, devices: Devices) -> Engine | None:
        """See Design; a design without a class on GPUs stays on the processor, and the log says why."""
        return None if engine is None else self._placed(_on_processor(engine), devices)

    def where(self, engine: Engine | None, devices: Devices) -> str:
        """See Design."""
        return engine.where if isinstance(engine, GpuFaissEngine) else "cpu"

    def _placed(self, engine: FaissEngine, devices: Devices) -> FaissEngine | GpuFaissEngine:
        """A copy on the GPUs that devices are, the engine itself where there are none or the design stays."""
        numbers = gpu_numbers(devices)
        if not numbers:
            return engine
        return GpuFaissEngine.from_processor(engine.index, numbers, engine.learned_from) or engine

    def _elsewhere(
        self, change: Change, engine: GpuFaissEngine, embeddings: EmbeddingBlocks, devices: Devices
    ) -> Engine | None:
        """A change made on the processor, and its outcome on the devices; a CAGRA graph is built anew there."""
        if engine.placement.gpu_class == "GpuIndexCagra":
            return self.build(embeddings, devices)
        return self.place(change(_on_processor(engine), embeddings, ()), embeddings, devices)

    def bytes_per_label(self, labels: int) -> float:
        """See Design. Of the graphs NSG and NNDescent it is the most: they keep only the neighbours that they find worth it."""
        return bytes_of(empty_faiss_index(self.factory, self.dimension), max(1, labels))

    def save(self, engine: Engine, directory: Path) -> None:
        """See Design; OSError where it cannot be written."""
        try:
            faiss.write_index(_on_processor(engine).index, str(directory / FILE))
        except RuntimeError as error:
            raise OSError(str(error)) from error

    def load(self, directory: Path, embeddings: EmbeddingBlocks, covered: int, devices: Devices) -> Engine | None:
        """See Design; the file stays on disk, memory-mapped. StoreError for one that does not fit."""
        if not covered:
            return None
        file = directory / FILE
        empty = empty_faiss_index(self.factory, self.dimension)
        index = read_faiss_index(file)
        if index.ntotal != covered or index.d != self.dimension:
            raise StoreError(
                f"{file} holds {index.ntotal} vectors of dimension {index.d}, "
                f"but the index has {covered} labels of dimension {self.dimension}."
            )
        require_design(index, empty, covered, file)
        set_parameters(index, self.factory, self.parameters)
        return self._placed(FaissEngine(index, covered, mapped=True), devices)


def _on_processor(engine: Engine) -> FaissEngine:
    """The engine, or one of the same content on the processor where it is on a GPU."""
    if isinstance(engine, GpuFaissEngine):
        return FaissEngine(engine.on_processor(), engine.learned_from)
    assert isinstance(engine, FaissEngine)
    return engine


def factory_of(design: str) -> str:
    """The FAISS factory string of a design, which may be the name of a storage."""
    return STORAGES.get(design, design)


def _fill(index: Any, embeddings: EmbeddingBlocks, first: int) -> None:
    """Add the rows from `first` on; designs that are filled once get them in one call."""
    rest = embeddings.since(first)
    if not len(rest):
        return
    at_once = isinstance(parts_of(index)[-1], (faiss.IndexNSG, faiss.IndexNNDescent))
    if at_once and len(rest) < LEAST_GRAPH:
        raise RuntimeError(f"a graph of this kind needs {LEAST_GRAPH:,} labels")
    with progress("indexing", len(rest), unit="labels") as line, shared_threads():
        for _, block in EmbeddingBlocks([rest.joined()]) if at_once else rest:
            step = len(block) if at_once else ADDED
            for start in range(0, len(block), step):
                rows = np.ascontiguousarray(block[start : start + step])
                index.add(rows)
                line.advance(len(rows))


def _spread(embeddings: EmbeddingBlocks, most: int) -> Embeddings:
    """`most` rows at most, at even distances."""
    if len(embeddings) <= most:
        return embeddings.joined()
    return embeddings.take(np.linspace(0, len(embeddings) - 1, most).astype(np.int64))
