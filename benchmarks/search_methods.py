"""The methods of the table search: each builds an index over label embeddings, searches it, saves and loads it.

Peers are set up as their documentation shows, with two threads; one parameter of each is walked for recall.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xmc.indexes.designs import bytes_per_label
from xmc.indexes.factory import build_index, load_index
from xmc.indexes.tuning import Goal, tune

__all__ = ["METHODS", "THREADS", "Embeddings", "FaissHnsw", "FaissIvf", "FileMethod", "Method", "Rows"]

Embeddings = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
THREADS = 2


class Method(ABC):
    """An index.

    walks: search parameters to be tried for a recall: in each walk from cheap to dear; none where the method tunes itself.
    """

    name: ClassVar[str]
    package: ClassVar[str] = "xmc"
    walks: tuple[tuple[Any, ...], ...] = ()

    @classmethod
    def is_installed(cls) -> bool:
        """Whether its package is there."""
        return importlib.util.find_spec(cls.package) is not None

    @abstractmethod
    def build(self, labels: Embeddings, tuning: Embeddings, recall: float) -> None:
        """Index labels [L, D]. Queries [n, D] and the recall at 10 are for a method that tunes itself."""

    @abstractmethod
    def search(self, queries: Embeddings, k: int, effort: Any) -> Rows:
        """Rows of the k best labels [n, k], with two threads where there are several queries."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the index."""

    @abstractmethod
    def load(self, path: Path) -> None:
        """Read what `save` wrote."""

    @abstractmethod
    def memory(self, path: Path, labels: int) -> float:
        """Bytes of a label."""


class Tuned(Method):
    """`tune` of this library: design and search parameters by measurement, in 400 bytes a label."""

    name = "xmc tuned"

    def build(self, labels: Embeddings, tuning: Embeddings, recall: float) -> None:
        """With the default budget of ten minutes."""
        goal = Goal(recall=recall, k=10, max_memory=400 * len(labels))
        tuned = tune(labels, np.arange(len(labels)), tuning, goal)
        self.index = tuned.index
        self.design = tuned.chosen

    def search(self, queries: Embeddings, k: int, effort: Any) -> Rows:
        """As tuned."""
        return np.asarray(self.index.search(queries, k)[0], np.int64)

    def save(self, path: Path) -> None:
        """With the float32 embeddings, that are read where they are needed."""
        self.index.save(path)

    def load(self, path: Path) -> None:
        """Checksums are verified."""
        self.index = load_index(path)

    def memory(self, path: Path, labels: int) -> float:
        """By the design; float32 embeddings stay on disk."""
        return bytes_per_label(self.design.design, self.index.dimension, labels)


class Exact(Tuned):
    """Every label is scored."""

    name = "xmc exact"

    def build(self, labels: Embeddings, tuning: Embeddings, recall: float) -> None:
        """Nothing to learn."""
        self.index = build_index("exact", labels.shape[1])
        self.index.build(labels, np.arange(len(labels)))

    def memory(self, path: Path, labels: int) -> float:
        """float32."""
        return bytes_per_label("exact", self.index.dimension, labels)


class FileMethod(Method):
    """A peer that writes one file or folder."""

    def memory(self, path: Path, labels: int) -> float:
        """Of all that was written."""
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files) / labels


class _Faiss(FileMethod):
    package = "faiss"
    factory: ClassVar[str]
    set_effort: ClassVar[Callable[[Any, int], None]]

    def build(self, labels: Embeddings, tuning: Embeddings, recall: float) -> None:
        """By faiss.index_factory, all labels for training."""
        import faiss

        faiss.omp_set_num_threads(THREADS)
        self.index: Any = faiss.index_factory(labels.shape[1], self.factory, faiss.METRIC_INNER_PRODUCT)
        self.index.train(labels)
        self.index.add(labels)

    def search(self, queries: Embeddings, k: int, effort: int) -> Rows:
        """The parameter is set at each call, which takes no time."""
        type(self).set_effort(self.index, effort)
        rows: Rows = self.index.search(queries, k)[1]
        return rows

    def save(self, path: Path) -> None:
        """One file."""
        import faiss

        faiss.write_index(self.index, str(path))

    def load(self, path: Path) -> None:
        """Into memory."""
        import faiss

        faiss.omp_set_num_threads(THREADS)
        self.index = faiss.read_index(str(path))


class FaissHnsw(_Faiss):
    """HNSW32 with FAISS's defaults."""

    name, factory = "faiss HNSW32", "HNSW32"
    walks = (tuple(round(16 * 2 ** (step / 4)) for step in range(29)),)

    @staticmethod
    def set_effort(index: Any, effort: int) -> None:
        """efSearch."""
        index.hnsw.efSearch = effort


class FaissIvf(_Faiss):
    """IVF4096: four times the root of a million cells."""

    name, factory = "faiss IVF4096,Flat", "IVF4096,Flat"
    walks = (tuple(sorted({round(2 ** (step / 4)) for step in range(44)})),)

    @staticmethod
    def set_effort(index: Any, effort: int) -> None:
        """Nprobe."""
        index.nprobe = effort


class FaissCompact(_Faiss):
    """Product quantisation of two dimensions in four bits, and the float32 embeddings to rank its candidates again."""

    name, factory = "faiss IVF4096,PQ128x4fs,RFlat", "IVF4096,PQ128x4fs,RFlat"
    walks = FaissIvf.walks

    @staticmethod
    def set_effort(index: Any, effort: int) -> None:
        """Nprobe, with ten candidates for each label asked for."""
        import faiss

        index.k_factor = 10
        faiss.downcast_index(index.base_index).nprobe = effort


class Usearch(FileMethod):
    """HNSW by usearch, with its defaults: 16 links, expansion 128 when adding."""

    package = "usearch"
    dtype: ClassVar[str]
    walks = FaissHnsw.walks

    def _empty(self, dimension: int) -> Any:
        from usearch.index import Index

        return Index(ndim=dimension, metric="ip", dtype=self.dtype)

    def build(self, labels: Embeddings, tuning: Embeddings, recall: float) -> None:
        """With two threads."""
        self.index = self._empty(labels.shape[1])
        self.index.add(np.arange(len(labels), dtype=np.uint64), labels, threads=THREADS)

    def search(self, queries: Embeddings, k: int, effort: int) -> Rows:
        """Its results leave keys unset where it finds too few."""
        self.index.expansion_search = effort
        found = self.index.search(queries, k, threads=THREADS)
        rows = np.full((len(queries), k), -1, np.int64)
        keys = np.asarray(found.keys).astype(np.int64).reshape(len(queries), -1)
        rows[:, : keys.shape[1]] = keys
        return rows

    def save(self, path: Path) -> None:
        """One file."""
        self.index.save(str(path))

    def load(self, path: Path) -> None:
        """Into memory."""
        from usearch.index import Index

        self.index = Index.restore(str(path))


class UsearchFull(Usearch):
    """float32."""

    name, dtype = "usearch f32", "f32"


class UsearchInt8(Usearch):
    """Eight bits a dimension."""

    name, dtype = "usearch i8", "i8"


class Hnswlib(FileMethod):
    """HNSW by hnswlib as its README sets it up: 16 links, ef_construction 200."""

    name, package = "hnswlib", "hnswlib"
    walks = FaissHnsw.walks
    dimension = 0

    def build(self, labels: Embeddings, tuning: Embeddings, recall: float) -> None:
        """With two threads."""
        import hnswlib

        self.dimension = labels.shape[1]
        self.index: Any = hnswlib.Index(space="ip", dim=self.dimension)
        self.index.init_index(max_elements=len(labels), M=16, ef_construction=200)
        self.index.add_items(labels, np.arange(len(labels)), num_threads=THREADS)
        self.index.set_num_threads(THREADS)

    def search(self, queries: Embeddings, k: int, effort: int) -> Rows:
        """Ef must not be below k."""
        self.index.set_ef(max(effort, k))
        rows, _ = self.index.knn_query(queries, k, num_threads=THREADS)
        return np.asarray(rows, np.int64)

    def save(self, path: Path) -> None:
        """One file; the dimension is left for the reader to know."""
        self.index.save_index(str(path))
        Path(f"{path}.dimension").write_text(str(self.dimension), encoding="ascii")

    def load(self, path: Path) -> None:
        """Into memory."""
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=int(Path(f"{path}.dimension").read_text(encoding="ascii")))
        self.index.load_index(str(path))
        self.index.set_num_threads(THREADS)


class Scann(FileMethod):
    """ScaNN as its documentation advises for a million: 2,000 leaves, two dimensions in four bits, 0.2, reordering."""

    name, package = "scann", "scann"
    walks = tuple(
        tuple((round(2 ** (step / 4)), reorder) for step in range(8, 44)) for reorder in (30, 50, 80, 120, 200, 400)
    )

    def build(self, labels: Embeddings, tuning: Embeddings, recall: float) -> None:
        """With two threads."""
        import scann

        builder = scann.scann_ops_pybind.builder(labels, 10, "dot_product").set_n_training_threads(THREADS)
        builder = builder.tree(num_leaves=2000, num_leaves_to_search=100, training_sample_size=250_000)
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
        self.index: Any = builder.build()
        self.index.set_num_threads(THREADS)

    def search(self, queries: Embeddings, k: int, effort: tuple[int, int]) -> Rows:
        """Candidates that are ranked again grow with k."""
        leaves, reorder = effort
        reorder = max(reorder, 2 * k)
        if len(queries) == 1:
            found, _ = self.index.search(queries[0], k, reorder, leaves)
            return np.asarray(found, np.int64)[None]
        found, _ = self.index.search_batched_parallel(queries, k, reorder, leaves)
        return np.asarray(found, np.int64)

    def save(self, path: Path) -> None:
        """A folder."""
        path.mkdir()
        self.index.serialize(str(path))

    def load(self, path: Path) -> None:
        """Into memory."""
        import scann

        self.index = scann.scann_ops_pybind.load_searcher(str(path))
        self.index.set_num_threads(THREADS)


METHODS: tuple[type[Method], ...] = (
    Tuned,
    Exact,
    FaissHnsw,
    FaissIvf,
    FaissCompact,
    UsearchFull,
    UsearchInt8,
    Hnswlib,
    Scann,
)
