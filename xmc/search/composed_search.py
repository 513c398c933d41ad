"""The candidates of a batch in which several vectors stand for some of the queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from xmc.arrays import Embeddings, Ids, Rows
from xmc.errors import InputError
from xmc.search.composed import ComposedQueries
from xmc.search.state import SearchState

__all__ = ["search_composed"]


def search_composed(
    state: SearchState, composed: ComposedQueries, search: Callable[[SearchState], SearchState]
) -> SearchState:
    """With the candidates of plain queries, and those of composed ones, whose vectors are searched each by itself.

    search: of queries that one vector each stands for. Raises InputError for a request of diversity, and as `search`.
    """
    if state.request.diversity:
        raise InputError(
            "diversity is for queries of one vector; leave it out for passages and for what is subtracted."
        )
    embeddings, count = state.encoded(), len(state.encoded())

    def found(rows: Rows, vectors: Embeddings, wanted: int) -> SearchState:
        request = state.request.of_rows(rows, count)
        return search(replace(state, request=request, embeddings=vectors, wanted=wanted, composed=None))

    plain = np.setdiff1d(np.arange(count), composed.rows)
    first = found(plain, embeddings[plain], state.wanted)
    exact = first.scorer
    assert exact is not None
    best = composed.best(state.wanted, lambda *asked: found(*asked).ranked(), exact)
    ids = np.full((count, first.ranked()[0].shape[1]), -1, np.int64)
    scores, reasons = np.full(ids.shape, -np.inf, np.float32), np.full(ids.shape, None, object)
    ids[plain], scores[plain] = first.ranked()
    for row, of_query in zip(composed.rows, best, strict=True):
        there = slice(len(of_query.ids))
        ids[row, there], scores[row, there] = of_query.ids, of_query.scores
        reasons[row, there] = [reason and (reason,) for reason in of_query.reasons]

    def scorer(embeddings: Embeddings, ids: Ids) -> Embeddings:
        scores = np.empty(ids.shape, np.float32)
        scores[plain] = exact(embeddings[plain], ids[plain])
        scores[composed.rows] = composed.scores(ids[composed.rows], [of_query.middles for of_query in best], exact)
        return scores

    state = replace(state, ids=ids, scores=scores, allowed_ids=ids, scorer=scorer)
    return state.explained(reasons) if state.request.explain else state
