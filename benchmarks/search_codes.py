"""Peers of the table search that hold codes of a few bits a dimension and no embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from search_methods import THREADS, Embeddings, FaissHnsw, FaissIvf, FileMethod, Method, Rows

__all__ = ["CODES"]


class _Rabitq(FileMethod):
    package = "rabitqlib"
    kind: ClassVar[str]

    def save(self, path: Path) -> None:
        """One file."""
        self.index.save(str(path))

    def load(self, path: Path) -> None:
        """Into memory."""
        import rabitqlib

        self.index: Any = getattr(rabitqlib, self.kind).load(str(path))


class RabitqIvf(_Rabitq):
    """IVF-RaBitQ as its README sets it up, with 4096 cells as FAISS has here, and 7 bits a dimension, as its benchmarks."""

    name, kind = "rabitqlib IVF 7 bits", "IvfIndex"
    bits: ClassVar[int] = 7
    walks = FaissIvf.walks

    def build(self, labels: Embeddings, tuning: Embeddings, recall: float) -> None:
        """With two threads, and its own k-means."""
        import rabitqlib

        cells = rabitqlib.RaBitQKMeans(
            labels.shape[1], 4096, num_threads=THREADS, final_assignment=rabitqlib.FinalAssignmentMode.Exact
        )
        cells.train(labels)
        self.index = rabitqlib.IvfIndex(labels.shape[1], len(labels), 4096, self.bits, metric="ip")
        self.index.build(labels, cells.centroids, cells.assignments, num_threads=THREADS)

    def search(self, queries: Embeddings, k: int, effort: int) -> Rows:
        """Nprobe; without embeddings to rank again."""
        return np.asarray(self.index.search(queries, k, effort, num_threads=THREADS)[0], np.int64)


class RabitqIvfShort(RabitqIvf):
    """4 bits a dimension."""

    name, bits = "rabitqlib IVF 4 bits", 4


class SymphonyQg(_Rabitq):
    """SymphonyQG, 32 links a label, 8 bits a dimension in place of the embeddings."""

    name, kind = "rabitqlib SymphonyQG 8 bits", "SymqgIndex"
    walks = FaissHnsw.walks

    def build(self, labels: Embeddings, tuning: Embeddings, recall: float) -> None:
        """With two threads; 200 candidates for the links."""
        import rabitqlib

        self.index = rabitqlib.SymqgIndex(labels.shape[1], 32, metric="ip", quantization_bits=8)
        self.index.build(labels, 200, num_threads=THREADS)

    def search(self, queries: Embeddings, k: int, effort: int) -> Rows:
        """Ef, at least k."""
        ask = self.index.search if len(queries) == 1 else self.index.search_batch
        return np.asarray(ask(queries, k, max(effort, k), num_threads=THREADS)[0], np.int64)


class Turbovec(FileMethod):
    """TurboQuant by turbovec, 4 bits a dimension, every label scanned; it has nothing to walk."""

    name, package = "turbovec 4 bits", "turbovec"
    walks = ((0,),)

    def build(self, labels: Embeddings, tuning: Embeddings, recall: float) -> None:
        """Nothing is learned."""
        import turbovec

        self.index: Any = turbovec.TurboQuantIndex(dim=labels.shape[1], bit_width=4)
        self.index.add(labels)

    def search(self, queries: Embeddings, k: int, effort: int) -> Rows:
        """With all cores."""
        return np.asarray(self.index.search(queries, k)[1], np.int64)

    def save(self, path: Path) -> None:
        """One file."""
        self.index.write(str(path))

    def load(self, path: Path) -> None:
        """Into memory."""
        import turbovec

        self.index = turbovec.TurboQuantIndex.load(str(path))


CODES: tuple[type[Method], ...] = (RabitqIvf, RabitqIvfShort, SymphonyQg, Turbovec)
