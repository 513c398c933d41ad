"""What runs are reported on: the queries of a split with their true labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from pyarrow import compute as pc
from scipy.sparse import csr_matrix

from xmc.cached import cached_property
from xmc.data.dataset import Dataset
from xmc.data.judgements import Judgements
from xmc.data.splits import Split
from xmc.data.targets import Targets
from xmc.errors import DataError
from xmc.evaluation.labelled import LabelledPart
from xmc.metrics.truth import hits

__all__ = ["Task"]

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """The queries of a split, filtered as for evaluation.

    queries: the n queries. training: the training split, None where the data set has none.
    targets: what is known of their pairs; excluded ones are neither predictions nor true. judgements: what people say of
    pairs, None where they have not.
    """

    dataset: Dataset
    split: str
    queries: Split
    training: Split | None
    targets: Targets
    judgements: Judgements | None = None

    @classmethod
    def from_split(cls, dataset: Dataset, split: str) -> Task:
        """A split of a data set; DataError where it has no such split, or the split no labelled queries."""
        queries = dataset.split(split)
        if not len(queries):
            raise DataError(f"The split {split!r} of the data set {dataset.name!r} has no queries to report on.")
        training = dataset.split("train") if "train" in dataset.splits else None
        part = LabelledPart.from_split(queries, dataset.targets(split), dataset.judgements(split))
        return cls(dataset, split, part.queries, training, part.targets, part.judgements)

    def take(self, queries: Int64s) -> Task:
        """Some of the queries, by their rows, ascending int64."""
        judgements = None if self.judgements is None else self.judgements.take(queries)
        return replace(
            self, queries=self.queries.take(queries), targets=self.targets.take(queries), judgements=judgements
        )

    @cached_property
    def texts(self) -> list[str]:
        """The texts of the queries [n]."""
        return list(pc.fill_null(self.queries.texts, "").to_pylist())

    @cached_property
    def label_texts(self) -> list[str]:
        """The texts of the data set's labels [L]."""
        return list(pc.fill_null(self.dataset.labels.texts, "").to_pylist())

    @cached_property
    def training_counts(self) -> Int64s | None:
        """Number of training queries of each label, int64 [L]; None without a training split."""
        return None if self.training is None else self.training.targets().positive_counts

    @property
    def truth(self) -> csr_matrix:
        """CSR bool [n, L], the true labels."""
        return self.targets.truth

    @cached_property
    def positives(self) -> Int64s:
        """Number of true labels of each query, int64 [n]."""
        return np.diff(self.truth.indptr).astype(np.int64)

    def true_labels(self, query: int) -> Int64s:
        """The rows of a query's true labels, ascending."""
        return np.asarray(self.truth.indices[self.truth.indptr[query] : self.truth.indptr[query + 1]], np.int64)

    def contains(self, labels: Int64s) -> npt.NDArray[np.bool_]:
        """Which of some labels [n, k], rows of each query's predictions, are true."""
        return hits(labels, self.truth)
