"""What a model itself says of why it gave a label: shares that sum to the score."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from worlds import colours, tiny_config

import xmc
from xmc.search.reasons import Reason

TEXTS = ["Red and BLUE, red!", "pink", "the grey café-thing, 12 of it " * 4]


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> xmc.Retriever:
    run = tmp_path_factory.mktemp("explained") / "run"
    xmc.train(colours(), tiny_config(), run)
    return xmc.Retriever.load(run)


def total(reasons: tuple[Reason, ...]) -> float:
    return sum(reason.value for reason in reasons)


def test_shares_of_words_sum_to_the_score(retriever: xmc.Retriever) -> None:
    answer = retriever.answer(TEXTS, 5, explain=True)
    assert answer.explanation is not None
    totals = [[total(reasons) for reasons in row] for row in answer.explanation]
    np.testing.assert_allclose(totals, answer.scores, atol=2e-6)
    first = answer.explanation[0, 0]
    assert {reason.text for reason in first} == {"red", "and", "blue"}
    assert [reason.value for reason in first] == sorted((reason.value for reason in first), reverse=True)
    assert answer.uids[0, 0] in ("RED", "BLUE")
    assert first[0].text.upper() == answer.uids[0, 0]


def test_of_many_words_the_greatest_are_listed(retriever: xmc.Retriever) -> None:
    text = " ".join(f"word{number}" for number in range(30))
    answer = retriever.answer([text], 2, explain=True)
    assert answer.explanation is not None
    for reasons, score in zip(answer.explanation[0], answer.scores[0], strict=True):
        assert [reason.kind for reason in reasons] == ["word"] * 8 + ["words"]
        assert reasons[-1].text == "22 other words"
        assert total(reasons) == pytest.approx(score, abs=2e-6)


def test_parts_of_a_query_have_their_shares(retriever: xmc.Retriever) -> None:
    vector = retriever.embed_queries(["yellow"])[0]
    query = xmc.Query({"red": 0.5, "not blue": -0.25}, labels={"GREEN": 0.3}, embeddings=[(vector, 0.2)])
    answer = retriever.answer([query, "pink"], 4, explain=True)
    assert answer.explanation is not None
    for reasons, score in zip(answer.explanation[0], answer.scores[0], strict=True):
        assert {(reason.kind, reason.text) for reason in reasons if reason.kind != "label"} == {
            ("word", "red"),
            ("word", "not"),
            ("word", "blue"),
            ("vector", ""),
        }
        assert [reason.uid for reason in reasons if reason.kind == "label"] == ["GREEN"]
        assert total(reasons) == pytest.approx(score, abs=2e-6)


def test_embeddings_cut_to_their_first_numbers_have_shares_too(retriever: xmc.Retriever) -> None:
    answer = retriever.cut(8).answer(TEXTS, 3, explain=True)
    assert answer.explanation is not None
    totals = [[total(reasons) for reasons in row] for row in answer.explanation]
    np.testing.assert_allclose(totals, answer.scores, atol=2e-6)


def test_where_nothing_can_be_said(retriever: xmc.Retriever) -> None:
    assert retriever.answer(TEXTS, 3).explanation is None
    assert retriever.answer(retriever.embed_queries(TEXTS), 3, explain=True).explanation is None
    answer = retriever.answer(TEXTS, 3, include=["RED"], explain=True)
    assert answer.explanation is not None
    assert answer.explanation[0].tolist()[1:] == [None, None]
    assert answer.to_dict()["answers"][0]["explanation"][0][0]["kind"] == "word"
    empty = retriever.answer([""], 3, explain=True, allow_empty=True)
    assert empty.explanation is not None
    assert empty.explanation[0].tolist() == [None] * 3


def test_the_same_with_probabilities_is_refused_as_without(retriever: xmc.Retriever) -> None:
    with pytest.raises(xmc.errors.InputError, match="not calibrated"):
        retriever.answer(TEXTS, 3, probabilities=True, explain=True)


def test_a_label_that_was_added_names_the_trained_label_that_it_is_like(retriever: xmc.Retriever) -> None:
    added = copy.deepcopy(retriever)
    added.add_labels(["red", "nothing of the kind"], uids=["NEW", "OTHER"])
    answer = added.answer(["red"], len(added), explain=True)
    assert answer.explanation is not None
    for uid, reasons in zip(answer.uids[0], answer.explanation[0], strict=True):
        trained = [reason for reason in reasons if reason.kind == "trained label"]
        assert len(trained) == (uid in ("NEW", "OTHER"))
        if uid == "NEW":
            vectors = added.embeddings[[*added.labels.rows(["NEW", "RED"])]]
            assert (trained[0].uid, trained[0].text) == ("RED", added.texts(["RED"])[0])
            cosine = vectors[0] @ vectors[1] / np.linalg.norm(vectors[0])
            assert trained[0].value == pytest.approx(cosine, abs=1e-5)
    added.remove_labels([uid for uid in added.labels.uids.to_pylist() if uid not in ("NEW", "OTHER")])
    left = added.answer(["red"], 2, explain=True).explanation
    assert left is not None
    assert {reason.kind for reasons in left[0] for reason in reasons} == {"word"}
