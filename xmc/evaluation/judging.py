"""What a search found for the queries of a data set, in the data set's own label rows and without its filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.metrics import NO_PREDICTION

__all__ = ["Ranking", "most_filtered"]

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ranking:
    """The labels found for each query, best first, ties by the data set's row; filtered labels are left out.

    ids: the run's own, int64 [n, k], -1 for none. labels: rows of the data set, UNKNOWN_LABEL for one that it does not have,
    NO_PREDICTION for none. scores: float32 [n, k], -inf for none.
    """

    ids: Int64s
    labels: Int64s
    scores: Float32s

    @classmethod
    def of(cls, ids: Int64s, labels: Int64s, scores: Float32s, filtered: Int64s, k: int) -> Ranking:
        """The k best of what a search returned, without filtered pairs (query, label), int64 [m, 2]."""
        none = labels == NO_PREDICTION
        if len(filtered):
            total = max(int(labels.max(initial=0)), int(filtered[:, 1].max())) + 1
            keys = np.arange(len(labels))[:, None] * total + labels
            none |= np.isin(keys, filtered[:, 0] * total + filtered[:, 1]) & (labels >= 0)
        ids, labels = np.where(none, -1, ids), np.where(none, NO_PREDICTION, labels)
        scores = np.where(none, -np.inf, scores).astype(np.float32)
        order = np.lexsort((ids, labels, -scores), axis=1)[:, :k]

        def ordered(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.take_along_axis(values, order, 1)

        return cls(ordered(ids), ordered(labels), ordered(scores))

    def place(self, query: int, label: int) -> int | None:
        """Where a label of the data set stands in a query's ranking, from 1; None where it does not."""
        found = np.flatnonzero(self.labels[query] == label)
        return int(found[0]) + 1 if len(found) else None


def most_filtered(pairs: npt.NDArray[np.integer] | None) -> int:
    """So many more labels must be searched for, that filtered pairs (query, label), int [m, 2], leave enough of every query."""
    return 0 if pairs is None or not len(pairs) else int(np.bincount(pairs[:, 0]).max())
