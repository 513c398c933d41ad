"""The first candidates of some queries, with their features and which of them are true: what a re-ranker is fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyarrow import compute as pc

from xmc.arrays import Embeddings, Ids, Mask, Rows
from xmc.data.dataset import Dataset
from xmc.data.splits import Split
from xmc.data.targets import Targets
from xmc.evaluation.judging import excluded_predictions
from xmc.evaluation.predicted import dataset_rows
from xmc.metrics import NO_PREDICTION
from xmc.metrics.truth import hits
from xmc.progress import tracked
from xmc.search.labels import LabelVersion
from xmc.search.rerank.features import Feature, FeatureValues, values_of
from xmc.search.retriever import Retriever
from xmc.search.stages import RERANK, SearchRequest

__all__ = ["Shortlists"]

AT_ONCE = 1_024
"""Queries that are searched together."""


@dataclass(frozen=True)
class Shortlists:
    """The m first candidates of n queries, best first.

    ids: int64 [n, m], -1 for none. labels: int64 [n, m], rows of the data set, or numbers below 0, see Predicted.
    scores: float32 [n, m], before re-ranking. values: float32 [n, m, F]. true: bool [n, m]. counted: bool [n, m], False for
    excluded pairs and where there is no label.
    """

    ids: Ids
    labels: Rows
    scores: Embeddings
    values: FeatureValues
    true: Mask
    counted: Mask

    @classmethod
    def from_search(
        cls,
        retriever: Retriever,
        labels: LabelVersion,
        dataset: Dataset,
        queries: Split,
        targets: Targets,
        features: Sequence[Feature],
        shortlist: int,
    ) -> Shortlists:
        """Search for every query with all stages but a re-ranker. labels: those of the retriever; targets: of the queries.

        Where a query is remembered itself, it does not vote.
        """
        rows_of_labels = dataset_rows(labels, dataset)
        corridor = retriever.corridor.without(RERANK, "cut")
        texts = pc.fill_null(queries.texts, "").to_pylist()
        images = retriever.model.query_encoder.images_of(queries.images)
        parts = []
        for first in tracked(range(0, len(texts), AT_ONCE), "searching", unit="batches of queries"):
            rows = np.arange(first, min(first + AT_ONCE, len(texts)))
            some_images = None if images is None else images.take(rows)
            request = SearchRequest(shortlist, allow_empty=True, leave_one_out=True)
            state = corridor(corridor.begin(request, labels, texts[first : first + AT_ONCE], some_images))
            ids, scores = state.ranked()
            ids, scores = ids[:, :shortlist], scores[:, :shortlist]
            found = np.where(ids >= 0, rows_of_labels[labels.rows_of_ids(ids)], NO_PREDICTION)
            some = targets.take(rows)
            counted = (ids >= 0) & ~excluded_predictions(found, some)
            values = values_of(tuple(features), state, ids)
            parts.append((ids, found, scores, values, hits(found, some.truth), counted))
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.ids)

    def take(self, rows: npt.NDArray[np.integer]) -> Shortlists:
        """Those of some queries."""
        arrays = (self.ids, self.labels, self.scores, self.values, self.true, self.counted)
        return Shortlists(*(array[rows] for array in arrays))
