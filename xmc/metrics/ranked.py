"""What metrics are functions of: the ranks of positives, and the first places of each query's ranking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmc.cached import cached_property
from xmc.metrics.ranking import NO_PREDICTION, best_ranks

__all__ = ["RankedPairs"]

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RankedPairs:
    """The m positives of n queries with their ranks, and the first places of the rankings that they stand in.

    indptr, positives: CSR rows of the positives, int64 [n + 1] and [m]. ranks: int32 [m], from 0; a large number for a
    positive that was not found. weights: inverse propensity of each positive, float64 [m]; None without training counts.
    labels: int64 [n, top], NO_PREDICTION for none, UNKNOWN_LABEL for a label that the truth does not have. scores: float32
    [n, top], of these labels.
    """

    indptr: Int64s
    positives: Int64s
    ranks: npt.NDArray[np.int32]
    weights: Float64s | None
    labels: Int64s
    scores: npt.NDArray[np.float32]

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.indptr) - 1

    @cached_property
    def counts(self) -> Int64s:
        """Number of positives of each query, int64 [n]."""
        return np.diff(self.indptr)

    @cached_property
    def rows(self) -> Int64s:
        """The query of each positive, int64 [m]."""
        return np.repeat(np.arange(len(self)), self.counts)

    @cached_property
    def best_ranks(self) -> npt.NDArray[np.int32]:
        """The rank of each positive when those of its query stand by falling weight, int32 [m], from 0."""
        assert self.weights is not None, "metrics that are weighted are asked for with weights alone"
        return np.asarray(best_ranks(self.indptr, self.weights), np.int32)

    def first_places(self, k: int) -> tuple[Int64s, npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Query, score and truth of all predictions in the first k places, [p] each, query by query, best first.

        k: at most the number of columns of `labels`; a greater one gives all of them.
        """
        labels = self.labels[:, :k]
        true = np.zeros(labels.shape, bool)
        inside = self.ranks < labels.shape[1]
        true[self.rows[inside], self.ranks[inside]] = True
        rows, columns = np.nonzero(labels != NO_PREDICTION)
        return rows, self.scores[rows, columns], true[rows, columns]
