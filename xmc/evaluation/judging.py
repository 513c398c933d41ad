"""The one rule of what excluded pairs do to predictions, and what a search returns in the data set's own label rows.

An excluded label is taken out of its query's predictions and holds no rank there; a search asks for as many labels more as
the filter can take from a query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.arrays import Ids, Mask, Rows
from xmc.data.targets import Targets
from xmc.metrics import NO_PREDICTION

__all__ = ["Ranking", "excluded_predictions", "most_excluded"]

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ranking:
    """The labels that a search returned for each query, best first, ties by the data set's row; excluded labels are left out.

    ids: the run's own, int64 [n, k], -1 for none. labels: rows of the data set, UNKNOWN_LABEL for one that it does not have,
    NO_PREDICTION for none. scores: float32 [n, k], -inf for none.
    """

    ids: Ids
    labels: Rows
    scores: Float32s

    @classmethod
    def from_search(cls, ids: Ids, labels: Rows, scores: Float32s, targets: Targets, k: int) -> Ranking:
        """The k best of what a search returned for the queries of `targets`, [n, columns] each, without excluded labels.

        ids, labels, scores: as in the class; the search was asked for `k + most_excluded(targets)` labels.
        """
        removed = (labels == NO_PREDICTION) | excluded_predictions(labels, targets)
        ids, labels = np.where(removed, -1, ids), np.where(removed, NO_PREDICTION, labels)
        scores = np.where(removed, -np.inf, scores).astype(np.float32)
        order = np.lexsort((ids, labels, -scores), axis=1)[:, :k]

        def ordered(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.take_along_axis(values, order, 1)

        return cls(ordered(ids), ordered(labels), ordered(scores))

    def place(self, query: int, label: int) -> int | None:
        """The place of a label of the data set in a query's ranking, from 1; None where it is not in it."""
        columns = np.flatnonzero(self.labels[query] == label)
        return int(columns[0]) + 1 if len(columns) else None


def most_excluded(targets: Targets) -> int:
    """The largest number of excluded labels of a query: a search must be asked for that many labels more than are judged."""
    return int(np.diff(targets.excluded.indptr).max(initial=0))


def excluded_predictions(labels: Rows, targets: Targets) -> Mask:
    """Which predictions are excluded pairs, bool [n, columns].

    labels: rows of the data set predicted for each query, int64 [n, columns]; numbers below 0 are never excluded.
    """
    excluded = np.zeros(labels.shape, bool)
    queries = np.flatnonzero(np.diff(targets.excluded.indptr))
    if not len(queries) or not labels.shape[1]:
        return excluded
    count = targets.excluded.shape[1]
    pairs = targets.excluded[queries].tocoo()
    keys = np.arange(len(queries))[:, None] * count + labels[queries]
    excluded[queries] = np.isin(keys, pairs.row.astype(np.int64) * count + pairs.col) & (labels[queries] >= 0)
    return excluded
