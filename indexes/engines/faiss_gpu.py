"""A FAISS index on GPUs: searches, and the processor's form of it."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xmc.arrays import Embeddings, Mask, Rows
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.engines.faiss_parts import parts_of, set_parameters, wrapped_parameters
from xmc.indexes.engines.gpu_copies import copy_to_gpus, copy_to_processor, graph_on_gpu
from xmc.indexes.engines.gpu_placement import LARGEST_K, GpuBuild, GpuPlacement, gpu_placement
from xmc.indexes.engines.gpu_resources import WORKING_BYTES, held_gpus
from xmc.indexes.library import faiss
from xmc.indexes.scan import first_found

__all__ = ["GpuFaissEngine"]

logger = logging.getLogger(__name__)

ADDED = 262_144
"""Rows that are handed to a GPU at a time."""
STEP = 32
"""The candidates that a walk over a CAGRA graph keeps are a multiple of this number."""


class GpuFaissEngine:
    """A FAISS index over the first `covered` rows, on one GPU or split between several."""

    exact = False

    def __init__(
        self, index: Any, placement: GpuPlacement, numbers: Sequence[int], learned_from: int, kept: Any = None
    ) -> None:
        """index: on the devices of these numbers. learned_from: see FaissEngine. kept: what FAISS reads on, and owns not."""
        self.index, self.placement = index, placement
        self.numbers = tuple(numbers) if placement.splits else tuple(numbers[:1])
        self.covered, self.learned_from = int(index.ntotal), learned_from
        self.reach = 128
        """Candidates that a walk over a CAGRA graph keeps: efSearch on the processor."""
        self._kept = kept

    @classmethod
    def from_processor(cls, index: Any, numbers: Sequence[int], learned_from: int) -> GpuFaissEngine | None:
        """A copy of an index of the processor's; None, and the log says why, where its design or it stays there."""
        placement = gpu_placement(index, GpuBuild.of_this_process())
        if not placement.gpu_class:
            logger.info("the index stays on the processor: %s", placement.reason)
            return None
        used = tuple(numbers) if placement.splits else tuple(numbers[:1])
        try:
            with held_gpus(used), _bounded_probes(index):
                engine = cls(copy_to_gpus(index, placement, used), placement, used, learned_from, index)
        except RuntimeError as error:
            logger.warning(
                "the index stays on the processor: FAISS cannot copy it to %s: %s", _named(used), _short(error)
            )
            return None
        if placement.gpu_class == "GpuIndexCagra":
            engine.reach = int(index.hnsw.efSearch)
        else:
            engine._kept = None  # only the graph reads the embeddings that it was copied from
        logger.info("the index is on %s", engine.where)
        return engine

    @classmethod
    def from_embeddings(
        cls, empty: Any, training: Embeddings, embeddings: EmbeddingBlocks, number: int
    ) -> GpuFaissEngine | None:
        """An index built on a GPU of an empty one of the processor's; None, and the log says why, where that fails."""
        placement = gpu_placement(empty, GpuBuild.of_this_process())
        if not placement.gpu_class:
            return None
        try:
            with held_gpus((number,)), _bounded_probes(empty):
                if placement.gpu_class == "GpuIndexCagra":
                    rows = np.ascontiguousarray(embeddings.joined())
                    graph = graph_on_gpu(rows, empty.hnsw.nb_neighbors(0), number)
                    engine = cls(graph, placement, (number,), len(rows), rows)
                    engine.reach = int(empty.hnsw.efSearch)
                    return engine
                index = copy_to_gpus(empty, placement, (number,))
                _learn_as(index, empty)
                if not index.is_trained:
                    index.train(training)
                engine = cls(index, placement, (number,), len(embeddings))
                engine._add(embeddings, 0)
        except RuntimeError as error:
            logger.warning(
                "the index is built on the processor: FAISS cannot on %s: %s", _named((number,)), _short(error)
            )
            return None
        logger.info("the index is on %s", engine.where)
        return engine

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled in the processor's form; on a machine without these devices it cannot be read."""
        return GpuFaissEngine.from_processor, (self.on_processor(), self.numbers, self.learned_from)

    @property
    def where(self) -> str:
        """Class, devices and working memory, in words."""
        remark = f"; {self.placement.remark}" if self.placement.remark else ""
        return (
            f"{_named(self.numbers)} as {self.placement.gpu_class}{' by cuVS' if self.placement.cuvs else ''}, "
            f"with {WORKING_BYTES >> 20} MiB of working memory on each{remark}"
        )

    def search(self, queries: Embeddings, k: int, allowed: Mask | None, share: float) -> tuple[Embeddings, Rows]:
        """Scores and rows [n, k]; behind the largest k of the class, and where a filter leaves too few, there are none (-1).

        None at all are given where FAISS fails, for want of memory, say: an exact search then takes the place of this one.
        """
        most = min(self._largest_k(), self.covered)
        if allowed is None or (self.placement.selects and len(self.numbers) <= 1):
            fetch, selected = min(k, most), allowed
        else:
            fetch, selected = min(most, math.ceil(1.5 * k / max(share, 1e-9)) + 8), None
        try:
            with held_gpus(self.numbers):
                scores, rows = self.index.search(queries, fetch, params=self._parameters(fetch, selected, share))
        except RuntimeError as error:
            logger.warning(
                "every label is scored on the processor: FAISS cannot on %s: %s", _named(self.numbers), _short(error)
            )
            return np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1)
        right = (rows >= 0) & (rows < self.covered)
        if allowed is not None:  # cuVS may fill up with rows that were not selected
            right &= allowed[np.where(right, rows, 0)]
        scores, rows = first_found(scores, np.where(right, rows, -1), min(k, fetch))
        lacking = k - rows.shape[1]
        if lacking:
            scores = np.pad(scores, ((0, 0), (0, lacking)))
            rows = np.pad(rows, ((0, 0), (0, lacking)), constant_values=-1)
        return np.where(rows >= 0, scores, -np.inf).astype(np.float32), rows.astype(np.int64)

    def set_parameters(self, factory: str, parameters: dict[str, float] | None) -> None:
        """Search-time parameters by FAISS's names, as on the processor; ConfigError as there."""
        if self.placement.gpu_class != "GpuIndexCagra":
            set_parameters(self.index, factory, parameters)
            _bound_probes(self.index)
            return
        likeness = faiss.IndexHNSWCagra(self.index.d, 2, faiss.METRIC_INNER_PRODUCT)
        set_parameters(likeness, factory, parameters)
        self.reach = int(likeness.hnsw.efSearch)

    def on_processor(self) -> Any:
        """A FAISS index of the processor's with the same content, in memory of its own."""
        with held_gpus(self.numbers):
            index = copy_to_processor(self.index, self.placement)
        if self.placement.gpu_class == "GpuIndexCagra":
            index.hnsw.efSearch = self.reach
        return index

    def extended(self, embeddings: EmbeddingBlocks) -> GpuFaissEngine | None:
        """Another engine with the rows behind the covered ones, added on the GPU; None where only the processor can."""
        if len(self.numbers) > 1 or self.placement.gpu_class == "GpuIndexCagra":
            return None
        engine = GpuFaissEngine.from_processor(self.on_processor(), self.numbers, self.learned_from)
        if engine is None:
            return None
        try:
            with held_gpus(self.numbers):
                engine._add(embeddings, self.covered)
        except RuntimeError as error:
            logger.warning(
                "labels are added on the processor: FAISS cannot on %s: %s", _named(self.numbers), _short(error)
            )
            return None
        return engine

    def _add(self, embeddings: EmbeddingBlocks, first: int) -> None:
        for _, block in embeddings.since(first):
            for start in range(0, len(block), ADDED):
                self.index.add(np.ascontiguousarray(block[start : start + ADDED]))
        self.covered = int(self.index.ntotal)

    def _largest_k(self) -> int:
        *outer, _ = parts_of(self.index)
        factors = [part.k_factor for part in outer if isinstance(part, faiss.IndexRefine)]
        return max(1, int(self.placement.largest_k / max([1.0, *factors])))

    def _parameters(self, k: int, allowed: Mask | None, share: float) -> Any:
        """FAISS's parameters for one search; a filter makes it look into more places the fewer labels pass it."""
        *outer, inner = parts_of(self.index)
        selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if self.placement.gpu_class == "GpuIndexCagra":  # which takes no other class of parameters
            parameters = faiss.SearchParametersCagra()
            effort = min(1 / max(share, 1e-9), 100.0)
            wanted = max(k, self.reach if selector is None else math.ceil(self.reach * effort))
            parameters.itopk_size = min(math.ceil(wanted / STEP) * STEP, self.placement.largest_k)
            if selector is not None:
                parameters.sel = selector
            return parameters
        if selector is None:
            return None
        if self.placement.gpu_class.startswith("GpuIndexIVF"):
            effort = min(1 / max(share, 1e-9), 100.0)
            probes = min(inner.nlist, math.ceil(inner.nprobe * effort), LARGEST_K)
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        else:
            parameters = faiss.SearchParameters(sel=selector)
        return wrapped_parameters(outer, parameters)


def _bound_probes(index: Any) -> None:
    """Let no search look into more cells than there are, or than a GPU's kernels can."""
    for part in parts_of(index):
        if isinstance(part, faiss.IndexShards):
            for place in range(part.count()):
                _bound_probes(part.at(place))
        elif hasattr(part, "nprobe"):
            part.nprobe = min(part.nprobe, part.nlist, LARGEST_K)


@contextlib.contextmanager
def _bounded_probes(index: Any) -> Iterator[None]:
    """A context in which an index of the processor's has no more probes than a GPU takes over."""
    inner = parts_of(index)[-1]
    before = getattr(inner, "nprobe", None)
    _bound_probes(inner)
    try:
        yield
    finally:
        if before is not None:
            inner.nprobe = before


def _learn_as(index: Any, empty: Any) -> None:
    """Let an index on a GPU learn its cells as the processor's would."""
    for part, model in zip(parts_of(index), parts_of(empty), strict=True):
        if hasattr(part, "cp") and hasattr(model, "cp"):
            for name in ("niter", "max_points_per_centroid", "min_points_per_centroid"):
                setattr(part.cp, name, getattr(model.cp, name))


def _named(numbers: Sequence[int]) -> str:
    return ", ".join(f"cuda:{number}" for number in numbers)


def _short(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1]
