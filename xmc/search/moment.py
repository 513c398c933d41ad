"""A retriever at one moment: all that an answer comes from, read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xmc.arrays import Embeddings
from xmc.data.images.ragged import Images
from xmc.encoders.dual import DualEncoder
from xmc.search.answers import Answer
from xmc.search.explanations import with_nearest_trained_labels, with_parts_of_queries
from xmc.search.labels import LabelVersion
from xmc.search.long_texts import answer_some_at_a_time
from xmc.search.stages import Corridor, SearchRequest

__all__ = ["Moment"]


@dataclass(frozen=True, eq=False)
class Moment:
    """A model, its labels and the stages of its searches, as they were at one moment; they never change.

    All methods raise InputError for queries and requests that `Retriever.predict` refuses.
    """

    model: DualEncoder
    labels: LabelVersion
    corridor: Corridor

    def answer(self, request: SearchRequest, queries: Any, images: Images | None = None) -> Answer:
        """What is asked of all queries; long texts are answered some at a time."""
        if request.passages is not None and images is None and not _is_matrix(queries):
            return answer_some_at_a_time(self._answer_together, request, queries)
        return self._answer_together(request, queries, images)

    def similar(self, request: SearchRequest, uids: Sequence[str]) -> Answer:
        """The labels most like each of some labels, itself left out; InputError for a uid that is not there."""
        rows = self.labels.known_index_rows(uids)
        request = replace(request, without=rows)
        corridor = self.corridor.of_labels().asked(request)
        return Answer.from_state(corridor(corridor.begin(request, self.labels, self.labels.index.blocks.take(rows))))

    def embed(self, queries: Any, images: Images | None = None) -> Embeddings:
        """Embeddings float32 [n, D] of queries."""
        request = SearchRequest(0, allow_empty=True)
        return self.corridor.encode(self.corridor.begin(request, self.labels, queries, images))

    def _answer_together(self, request: SearchRequest, queries: Any, images: Images | None = None) -> Answer:
        corridor = self.corridor.asked(request)
        state = corridor(corridor.begin(request, self.labels, queries, images))
        if request.explain:
            state = with_nearest_trained_labels(with_parts_of_queries(state, self.model))
        return Answer.from_state(state)


def _is_matrix(queries: Any) -> bool:
    return isinstance(queries, np.ndarray) and queries.dtype.kind not in "OUST"
