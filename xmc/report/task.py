"""What runs are reported on: the queries of a split with their true labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from pyarrow import compute as pc
from scipy.sparse import csr_matrix

from xmc.data.dataset import Dataset, Split
from xmc.errors import DataError

__all__ = ["Task"]

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """The queries of a split, filtered as for evaluation.

    queries: the n queries. training: the training split, None where the data set has none.
    filter: pairs (query, label) int64 [m, 2] that are neither predictions nor true.
    truth: bool [n, L], the true labels without filtered ones.
    """

    dataset: Dataset
    split: str
    queries: Split
    training: Split | None
    filter: Int64s
    truth: csr_matrix

    @classmethod
    def of(cls, dataset: Dataset, split: str) -> Task:
        """A split of a data set; DataError where it has no such split, or the split no queries."""
        queries = dataset.split(split)
        if not len(queries):
            raise DataError(f"The split {split!r} of the data set {dataset.name!r} has no queries to report on.")
        training = dataset.split("train") if "train" in dataset.splits else None
        pairs, (_, labels) = dataset.filter(split), queries.positives.shape
        positive = (queries.positives > 0).tocoo()
        rows, columns = positive.row.astype(np.int64), positive.col.astype(np.int64)
        kept = ~np.isin(rows * labels + columns, pairs[:, 0] * labels + pairs[:, 1])
        truth = csr_matrix((np.ones(kept.sum(), bool), (rows[kept], columns[kept])), shape=queries.positives.shape)
        truth.sort_indices()
        return cls(dataset, split, queries, training, pairs, truth)

    def take(self, queries: Int64s) -> Task:
        """Some of the queries, by their rows, ascending int64."""
        pairs = self.filter[np.isin(self.filter[:, 0], queries)]
        pairs = np.stack([np.searchsorted(queries, pairs[:, 0]), pairs[:, 1]], axis=1)
        return replace(self, queries=self.queries.take(queries), filter=pairs, truth=self.truth[queries])

    @cached_property
    def texts(self) -> list[str]:
        """Of the queries [n]."""
        return list(pc.fill_null(self.queries.texts, "").to_pylist())

    @cached_property
    def label_texts(self) -> list[str]:
        """Of the data set's labels [L]."""
        return list(pc.fill_null(self.dataset.labels.texts, "").to_pylist())

    @cached_property
    def training_counts(self) -> Int64s | None:
        """How many training queries each label has, int64 [L]; None without a training split."""
        return None if self.training is None else np.asarray(self.training.positives.getnnz(axis=0), np.int64)

    @cached_property
    def positives(self) -> Int64s:
        """How many true labels each query has, int64 [n]."""
        return np.diff(self.truth.indptr).astype(np.int64)

    def true_labels(self, query: int) -> Int64s:
        """The rows of a query's true labels, ascending."""
        return np.asarray(self.truth.indices[self.truth.indptr[query] : self.truth.indptr[query + 1]], np.int64)

    def contains(self, labels: Int64s) -> npt.NDArray[np.bool_]:
        """Which of some labels [n, k], rows of each query's predictions, are true."""
        total = self.truth.shape[1]
        queries = np.arange(len(labels))[:, None]
        true = np.repeat(np.arange(len(self.positives)), self.positives) * total + self.truth.indices
        return np.isin(queries * total + labels, true) & (labels >= 0)
