"""A metric of each query and of all of them, and of random samples of queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["PooledValues", "QueryValues"]

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]
CELLS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class QueryValues:
    """A metric that is a sum over queries divided by another one, such as the mean.

    gains: what each query has, float64 [n]. ideals: what each query could have, float64 [n]; the metric is
    100 Σ gains / Σ ideals, and 0 where no query could have anything.
    """

    gains: Float64s
    ideals: Float64s

    @classmethod
    def mean_of(cls, values: Float64s) -> QueryValues:
        """The mean of `values`, float64 [n], over queries."""
        return cls(values, np.ones(len(values)))

    @property
    def value(self) -> float:
        """The metric over all queries, in percent."""
        ideal = float(np.sum(self.ideals))
        return float(100 * np.sum(self.gains) / ideal) if ideal else 0.0

    @property
    def of_queries(self) -> Float64s:
        """What each query adds to the metric, float64 [n], in percent; the mean over all queries is the metric."""
        ideal = float(np.mean(self.ideals)) if len(self.ideals) else 0.0
        return 100 * self.gains / ideal if ideal else np.zeros(len(self.gains))

    def resampled(self, weights: Float64s) -> Float64s:
        """The metric over samples of the queries, float64 [b], in percent.

        weights: how often each query is in each sample, float64 [b, n].
        """
        ideals = weights @ self.ideals
        return np.asarray(100 * (weights @ self.gains) / np.where(ideals > 0, ideals, np.inf), np.float64)


@dataclass(frozen=True)
class PooledValues(QueryValues):
    """The average precision of one ranking in which the predictions of all queries stand.

    gains: the precision at each hit of the query, summed, float64 [n]. ideals: number of positives of each query, float64 [n].
    queries, true: the query of each prediction, int64 [p], and whether it is a hit, bool [p], best first.
    """

    queries: Int64s
    true: npt.NDArray[np.bool_]

    @classmethod
    def from_predictions(
        cls, queries: Int64s, scores: npt.NDArray[np.float32], true: npt.NDArray[np.bool_], positives: Int64s
    ) -> PooledValues:
        """Pool predictions, [p] each, by falling score; of equal scores the one that is given first is first.

        positives: number of positives of each query, int64 [n].
        """
        order = np.argsort(-scores, kind="stable")
        queries, true = queries[order], true[order]
        precision = np.cumsum(true) / np.arange(1, len(true) + 1)
        gains = np.bincount(queries, np.where(true, precision, 0.0), len(positives))
        return cls(np.asarray(gains, np.float64), positives.astype(np.float64), queries, true)

    def resampled(self, weights: Float64s) -> Float64s:
        """As for other metrics; copies of a query share the precision that stands behind the last of them."""
        values = np.zeros(len(weights))
        step = max(1, CELLS_AT_ONCE // max(1, len(self.queries)))
        for first in range(0, len(weights), step):
            sample = weights[first : first + step]
            copies = sample[:, self.queries]
            hits = copies * self.true
            places = np.cumsum(copies, axis=1)
            gains = np.sum(hits * np.cumsum(hits, axis=1) / np.maximum(places, 1), axis=1)
            ideals = sample @ self.ideals
            values[first : first + step] = 100 * gains / np.where(ideals > 0, ideals, np.inf)
        return values
