"""The queries of a split that anything can be judged by: those that are labelled."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xmc.arrays import Rows
from xmc.data.judgements import Judgements
from xmc.data.splits import Split
from xmc.data.targets import Targets
from xmc.errors import DataError
from xmc.evaluation.predicted import Predicted
from xmc.metrics import NO_PREDICTION

__all__ = ["LabelledPart"]


@dataclass(frozen=True)
class LabelledPart:
    """The m labelled queries of a split of n, with what is known of them.

    rows: of these queries in the split, int64 [m]; None where all are labelled. judgements: None where there are none.
    """

    queries: Split
    targets: Targets
    judgements: Judgements | None
    rows: Rows | None

    @classmethod
    def from_split(cls, queries: Split, targets: Targets, judgements: Judgements | None = None) -> LabelledPart:
        """Of all queries of a split, and what is known of them; DataError where none is labelled."""
        if queries.labelled is None:
            return cls(queries, targets, judgements, None)
        rows = np.flatnonzero(queries.labelled)
        if not len(rows):
            raise DataError(
                f"None of the {len(queries):,} queries is labelled (`labelled` is false for each): there is nothing to judge "
                f"by."
            )
        taken = None if judgements is None else judgements.take(rows)
        return cls(queries.take(rows), targets.take(rows), taken, rows)

    def spread(self, predicted: Predicted, queries: int) -> Predicted:
        """Predictions for these queries as predictions for all of the split, none for those that are not labelled.

        queries: number of queries of the split.
        """
        if self.rows is None:
            return predicted
        shape = (queries, predicted.labels.shape[1])
        places, labels = np.full(shape, -1), np.full(shape, NO_PREDICTION)
        scores = np.full(shape, -np.inf, np.float32)
        for every, some in ((places, predicted.places), (labels, predicted.labels), (scores, predicted.scores)):
            every[self.rows] = some
        return replace(predicted, places=places, labels=labels, scores=scores)
