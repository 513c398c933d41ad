"""What stages of a search are given: what is asked, and queries on their way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.arrays import Embeddings, Ids, Mask, Rows
from xmc.data.images.ragged import Images
from xmc.data.tokens import RaggedTokens
from xmc.errors import InputError
from xmc.indexes.selection import Selection, per_query
from xmc.search.composed import ComposedQueries
from xmc.search.filters import Condition, Uids, narrow
from xmc.search.labels import LabelVersion
from xmc.search.passages import PassageOptions
from xmc.search.reasons import Reasons, joined_reasons

__all__ = ["SearchRequest", "SearchState"]


@dataclass(frozen=True)
class SearchRequest:
    """What is asked of a search beside its queries; see `Retriever.predict`.

    allow_empty: texts of queries may be empty. without: int64 [n], for each query the index row of a label that is not for it.
    explain: whether stages say why they give a label, see SearchState.explanation. passages: how texts are cut into passages;
    None for whole texts. rerank: whether the stage `rerank` takes part; None for what the run has. leave_one_out: remembered
    queries with a query's own text do not vote for it, as where queries that are remembered are searched for.
    """

    k: int
    include: Uids | None = None
    exclude: Uids | None = None
    where: Condition | None = None
    rescore: int | None = None
    diversity: float = 0.0
    allow_empty: bool = False
    without: Rows | None = None
    explain: bool = False
    passages: PassageOptions | None = None
    rerank: bool | None = None
    leave_one_out: bool = False

    def filters(self, labels: LabelVersion, queries: int) -> Selection:
        """The index rows that this number of queries may be answered with.

        Raises InputError for filters that do not fit the labels or the number of queries.
        """
        selection = narrow(labels, queries, self.include, self.exclude, self.where)
        if self.without is None:
            return selection
        lists = [self.without[:0]] * len(self.without) if selection.exclude is None else selection.exclude
        excluded = [np.append(rows, row) for rows, row in zip(lists, self.without, strict=True)]
        return replace(selection, exclude=excluded)

    def of_rows(self, rows: Rows, queries: int) -> SearchRequest:
        """What is asked of some of this number of queries, int64 [m], repeats allowed."""
        chosen: dict[str, Any] = {}
        for name in ("include", "exclude"):
            given = getattr(self, name)
            entries = None if given is None else per_query(given, queries, name, "uid")
            if entries is not None:
                chosen[name] = [entries[row] for row in rows]
        if self.without is not None:
            chosen["without"] = self.without[rows]
        return replace(self, **chosen) if chosen else self


@dataclass(frozen=True)
class SearchState:
    """Some queries on their way through the stages; a stage makes the next state by `dataclasses.replace`.

    labels: the labels and their index at one moment; `labels.held` is None where labels are searched elsewhere.
    queries: texts, `Query` objects, features of the query encoder, or embeddings float32 [n, D].
    images: those of each text. features: what the query encoder makes of the texts, where that was done before.
    wanted: number of labels that the stages after `candidates` need.
    embeddings: float32 [n, D], once encoded. ids int64 [n, m], -1 for none, and scores float32 [n, m], -inf for none, best
    first, once there are candidates. explanation: what stages say of each label, where the request asks for it, else None.
    allowed_ids: the ids of a stage that already returned allowed labels alone; other ids are filtered before the cut.
    scorer: embeddings [n, D] and ids [n, m] to exact scores, float32 [n, m], -inf for -1 and ids that are not there; set by the
    stage `candidates`.
    composed: the queries of several vectors among them, once encoded; None where there are none. Stages behind `candidates` see
    each of them as any other query: its embedding is that of its first part, of passages the unit mean.
    recalled: similarities float64 [n, k] and rows int64 [n, k] of the nearest remembered queries, -inf and -1 for none, where
    there is a memory. encoded_by: the queries and their embeddings by another encoder, under its fingerprint, see
    xmc.search.other_encoder.
    """

    request: SearchRequest
    labels: LabelVersion
    queries: Any
    images: Images | None = None
    features: RaggedTokens | None = None
    wanted: int = 0
    embeddings: Embeddings | None = None
    ids: Ids | None = None
    scores: Embeddings | None = None
    explanation: Reasons | None = None
    allowed_ids: Ids | None = None
    scorer: Callable[[Embeddings, Ids], Embeddings] | None = None
    composed: ComposedQueries | None = None
    recalled: tuple[npt.NDArray[np.float64], Rows] | None = None
    encoded_by: dict[str, tuple[Any, Embeddings]] = field(default_factory=dict)

    def encoded(self) -> Embeddings:
        """The embeddings. InputError before `encode`."""
        if self.embeddings is None:
            raise InputError("The queries are not encoded yet; let the stage come after 'encode'.")
        return self.embeddings

    def ranked(self) -> tuple[Ids, Embeddings]:
        """Ids and scores. InputError before `candidates`."""
        if self.ids is None or self.scores is None:
            raise InputError("There are no candidates yet; let the stage come after 'candidates'.")
        return self.ids, self.scores

    def scores_of(self, ids: Ids) -> Embeddings:
        """The exact score of each query with labels of its own, ids int64 [n, m]: float32 [n, m]; InputError as `ranked`."""
        if self.scorer is None:
            raise InputError("There are no candidates yet; let the stage come after 'candidates'.")
        return self.scorer(self.encoded(), ids)

    def allows(self, ids: Ids) -> Mask:
        """Which labels, ids int64 [n, m], are there and allowed by the request: bool [n, m], not for -1."""
        rows = self.labels.index_rows_of_ids(ids)
        selection = self.request.filters(self.labels, len(ids))
        kept = rows >= 0
        if selection.allowed is not None:
            kept[kept] = selection.allowed[rows[kept]]
        for lists, included in ((selection.include, True), (selection.exclude, False)):
            for query, listed in enumerate(lists or ()):
                kept[query] &= np.isin(rows[query], listed) == included
        return kept

    def explained(self, reasons: Reasons) -> SearchState:
        """The state with more reasons beside those that are there."""
        return replace(self, explanation=joined_reasons(self.explanation, reasons))

    def ordered(self, order: npt.NDArray[np.integer]) -> SearchState:
        """The state with the candidates in other columns, or in fewer: `order` [n, m'] holds column numbers."""
        ids, scores = self.ranked()
        explanation = None if self.explanation is None else np.take_along_axis(self.explanation, order, 1)
        ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
        return replace(self, ids=ids, scores=scores, explanation=explanation)
