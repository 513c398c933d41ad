"""What a memory tells a re-ranker, against its definition; queries that are remembered themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from worlds import colours

import xmc
from xmc.errors import InputError
from xmc.evaluation.memory import memory_by_default
from xmc.search.rerank.features import FeatureContext
from xmc.search.rerank.neighbours import NeighbourFeature
from xmc.search.stages import SearchRequest
from xmc.search.state import SearchState

TEXTS = ["red and blue", "pink", "black and white", "a grey thing"]


@pytest.fixture
def remembering(run: Path) -> xmc.Retriever:
    """The run with a memory of all of its training queries, ten of which vote."""
    retriever = xmc.Retriever.load(run)
    memory_by_default(retriever, colours(), "own")
    return retriever


def recalled(retriever: xmc.Retriever, texts: list[str], leave_one_out: bool = False) -> SearchState:
    """Queries behind the stage `memory`."""
    corridor = retriever.corridor.without("cut")
    request = SearchRequest(12, leave_one_out=leave_one_out)
    return corridor(corridor.begin(request, retriever.labels, texts))


def test_features_of_neighbours_are_what_they_are_said_to_be(remembering: xmc.Retriever) -> None:
    state = recalled(remembering, TEXTS)
    ids, _ = state.ranked()
    context = FeatureContext(remembering.labels, np.zeros(12, np.int32))
    values = NeighbourFeature.from_context(context).values(state, ids)
    training = colours().split("train")
    positives = training.positives.toarray() > 0
    products = remembering.embed_queries(TEXTS) @ remembering.embed_queries(training.texts.to_pylist()).T
    for query in range(len(TEXTS)):
        nearest = np.argsort(-products[query], kind="stable")[:10]
        similarities = products[query, nearest].astype(np.float64)
        shares = np.exp((similarities - similarities.max()) / 0.05)
        shares /= shares.sum()
        for column, label in enumerate(ids[query]):
            has = positives[nearest, label]
            said = [shares[has].sum(), has.sum(), similarities[0], similarities[has].max() if has.any() else np.nan]
            np.testing.assert_allclose(values[query, column], said, atol=2e-5)


def test_there_is_nothing_to_say_without_neighbours(run: Path, remembering: xmc.Retriever) -> None:
    plain = xmc.Retriever.load(run)
    with pytest.raises(InputError, match=r"'neighbours' needs a memory of queries; .* xmc\.fit_memory"):
        NeighbourFeature.from_context(FeatureContext(plain.labels, np.zeros(12, np.int32)))
    state = recalled(plain, TEXTS)
    assert np.isnan(NeighbourFeature().values(state, state.ranked()[0])).all()
    mixed = recalled(remembering, TEXTS)
    ids = np.full((len(TEXTS), 3), -1)
    assert NeighbourFeature().values(mixed, ids).shape == (4, 3, 4)


def test_a_remembered_query_is_left_out_where_it_would_vote_for_itself(remembering: xmc.Retriever) -> None:
    texts = colours().split("train").texts.to_pylist()[:20]
    memory = remembering.memory
    assert memory is not None
    for leave_one_out in (False, True):
        state = recalled(remembering, texts, leave_one_out)
        assert state.recalled is not None
        similarities, rows = state.recalled
        assert rows.shape == (20, 10)
        own = [text in memory.texts_at(found) for text, found in zip(texts, rows, strict=True)]
        assert own == [not leave_one_out] * 20
        assert (rows >= 0).all()
        assert (np.diff(similarities, axis=1) <= 0).all()
