"""Queries of several vectors: passages combined, and queries subtracted, against float64 over all labels."""

from __future__ import annotations

import doctest
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import xmc
from xmc.encoders.spans import word_blocks, word_spans
from xmc.errors import InputError
from xmc.search import composed, long_texts, passages, queries
from xmc.search.composed import LIKELY
from xmc.search.passages import PassageOptions, combined, cut, strongest
from xmc.search.state import SearchRequest

DOCUMENT = ["red and blue", "a grey thing", "cyan sea", "black"]


@pytest.fixture(scope="module")
def retriever(run: Path) -> xmc.Retriever:
    return xmc.Retriever.load(run)


def scores_of(retriever: xmc.Retriever, texts: list[str]) -> npt.NDArray[np.float64]:
    """Of each text with all labels."""
    return retriever.embed_queries(texts).astype(np.float64) @ retriever.embeddings.astype(np.float64).T


def formula(scores: npt.NDArray[np.float64], combine: str, temperature: float) -> npt.NDArray[np.float64]:
    if combine == "logmeanexp":
        return temperature * np.log(np.exp(scores / temperature).mean(axis=0))
    return scores.max(axis=0) if combine == "max" else scores.sum(axis=0)


def by_uid(found: tuple[Any, Any], row: int = 0) -> dict[str, float]:
    return {uid: score for uid, score in zip(found[0][row], found[1][row], strict=True) if uid is not None}


def ranking(retriever: xmc.Retriever, scores: npt.NDArray[np.float64]) -> list[str]:
    return [retriever.labels.uids[int(place)].as_py() for place in np.argsort(-scores, kind="stable")]


@pytest.mark.parametrize(
    ("combine", "temperature"), [("logmeanexp", 0.1), ("logmeanexp", 1e-4), ("max", 0.1), ("sum", 1)]
)
def test_combined_scores_are_those_of_a_formula_over_all_labels(
    retriever: xmc.Retriever, combine: Any, temperature: float
) -> None:
    asked = xmc.Query(passages=DOCUMENT, combine=combine, temperature=temperature)
    labels, scores = retriever.predict([asked], k=12)
    expected = formula(scores_of(retriever, DOCUMENT).clip(-1, 1), combine, max(temperature, 2e-3))
    order = [retriever.labels.uids.to_pylist().index(uid) for uid in labels[0]]
    np.testing.assert_allclose(scores[0], expected[order], rtol=0, atol=4e-3 if temperature < 2e-3 else 2e-6)
    assert (np.diff(scores[0]) <= 0).all()
    assert retriever.predict([asked], k=3)[0][0].tolist() == labels[0, :3].tolist()


def test_a_batch_mixes_kinds_and_no_answer_depends_on_the_others(retriever: xmc.Retriever) -> None:
    asked = [
        "red and green",
        xmc.Query(passages=DOCUMENT),
        xmc.Query(["pink"], labels=["CYAN"]),
        xmc.Query(["red and blue"]).minus("a red thing"),
        xmc.Query(passages=DOCUMENT[:2], combine="max").minus(xmc.Query(passages=DOCUMENT[1:])),
    ]
    together = retriever.answer(asked, k=5, explain=True)
    for row, query in enumerate(asked):
        alone = retriever.answer([query], k=5, explain=True)
        assert together.ids[row].tolist() == alone.ids[0].tolist()
        np.testing.assert_array_equal(together.scores[row], alone.scores[0])
        said = [None] * 5 if alone.explanation is None else alone.explanation[0].tolist()
        assert together.explanation is not None
        assert together.explanation[row].tolist() == said


def test_a_document_stands_for_its_mean_passage(retriever: xmc.Retriever) -> None:
    mean = retriever.embed_queries(DOCUMENT).mean(axis=0)
    found = retriever.embed_queries(["red", xmc.Query(passages=DOCUMENT)])
    np.testing.assert_allclose(found[1], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_array_equal(found[0], retriever.embed_queries(["red"])[0])


def test_later_stages_see_one_row_a_document_and_can_score_any_label(retriever: xmc.Retriever) -> None:
    asked = ["red", xmc.Query(passages=DOCUMENT), xmc.Query(["blue"]).minus("cyan")]
    corridor, labels = retriever.corridor, retriever.labels
    state = corridor(corridor.begin(SearchRequest(12), labels, asked))
    ids, scores = state.ranked()
    assert state.encoded().shape == (3, 32)
    np.testing.assert_allclose(state.scores_of(ids), scores, atol=1e-6)
    mixed = ids.copy()
    mixed[:, 3] = -1
    assert np.isneginf(state.scores_of(mixed)[:, 3]).all()


def test_what_is_subtracted_lowers_what_is_likely(retriever: xmc.Retriever) -> None:
    first, other = scores_of(retriever, ["red and blue", "a red thing"])
    tau = float(retriever.model.temperature)

    def likely(scores: npt.NDArray[np.float64]) -> Any:
        return 1 / (1 + np.exp((np.sort(scores)[-LIKELY] - scores) / tau))

    expected = likely(first) * (1 - likely(other))
    labels, scores = retriever.predict([xmc.Query(["red and blue"]).minus("a red thing")], k=12)
    order = [retriever.labels.uids.to_pylist().index(uid) for uid in labels[0]]
    np.testing.assert_allclose(scores[0], expected[order], rtol=1e-4, atol=1e-6)
    assert labels[0, 0] == "BLUE"
    assert retriever.predict(["red and blue"], k=1)[0][0, 0] == "RED" or "RED" not in labels[0, :1]


def test_filters_and_changes_hold(run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    asked = [xmc.Query(passages=DOCUMENT), "red and blue", xmc.Query(passages=["pink", "red"])]
    exclude = [["RED", "CYAN"], ["BLUE"], []]
    found = retriever.predict(asked, k=12, exclude=exclude)
    for row, listed in enumerate(exclude):
        assert len(by_uid(found, row)) == 12 - len(listed)
        assert not set(listed) & set(by_uid(found, row))
    only = retriever.predict(asked, k=4, include=["RED", "BLUE"])
    assert all(set(by_uid(only, row)) == {"RED", "BLUE"} for row in range(3))
    one_each = retriever.predict(asked, k=4, include=[["RED"], ["BLUE"], ["PINK"]])
    assert [list(by_uid(one_each, row)) for row in range(3)] == [["RED"], ["BLUE"], ["PINK"]]
    retriever.remove_labels(["GREY"])
    retriever.add_labels(["turquoise"], uids=["NEW"])
    changed = by_uid(retriever.predict([xmc.Query(passages=["grey", "turquoise"], combine="max")], k=12))
    assert "GREY" not in changed
    assert max(changed, key=changed.__getitem__) == "NEW"


def test_long_texts_are_cut_searched_and_explained(retriever: xmc.Retriever) -> None:
    options = PassageOptions(tokens=4, stride=3, combine="max")
    text = "red and blue things \n are on a grey  table under cyan"
    pieces = cut(text, options, retriever.model.query_encoder)
    assert pieces == ["red and blue things", "things \n are on a", "a grey  table under", "under cyan"]
    answer = retriever.answer([text, "red"], k=12, passages=options, explain=True)
    given = retriever.answer(
        [xmc.Query(passages=pieces, combine="max"), xmc.Query(passages=["red"], combine="max")], k=12
    )
    np.testing.assert_array_equal(answer.ids, given.ids)
    np.testing.assert_array_equal(answer.scores, given.scores)
    assert answer.explanation is not None
    for (reason,), score in zip(answer.explanation[0], answer.scores[0], strict=True):
        assert (reason.kind, reason.value) == ("passage", pytest.approx(score))
        assert reason.text in pieces
    said = dict(zip(answer.uids[0], answer.explanation[0], strict=True))
    assert said["CYAN"][0].text == "under cyan"
    assert '"passage"' in str(answer.to_dict()).replace("'", '"')


def test_a_batch_of_long_texts_is_answered_some_at_a_time(
    retriever: xmc.Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["red and blue things", "a grey table", "cyan", "pink or purple flowers in the garden", "black"]
    exclude, options = [["RED"], [], ["CYAN"], ["PINK"], []], PassageOptions(tokens=2)
    whole = retriever.answer(texts, k=12, exclude=exclude, passages=options, explain=True)
    monkeypatch.setattr(long_texts, "CHARACTERS", 20)
    sliced = retriever.answer(texts, k=12, exclude=exclude, passages=options, explain=True)
    np.testing.assert_array_equal(whole.ids, sliced.ids)
    np.testing.assert_array_equal(whole.scores, sliced.scores)
    assert whole.explanation is not None
    assert sliced.explanation is not None
    assert whole.explanation.tolist() == sliced.explanation.tolist()
    assert retriever.predict([], passages=options)[0].shape[0] == 0


def test_many_passages_go_through_in_blocks(retriever: xmc.Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [xmc.Query(passages=DOCUMENT * 5), xmc.Query(passages=DOCUMENT[:2]), xmc.Query(passages=DOCUMENT * 3)]
    whole = retriever.predict(asked, k=5)
    monkeypatch.setattr(composed, "AT_ONCE", 3)
    blocks = retriever.predict(asked, k=5)
    np.testing.assert_array_equal(whole[0], blocks[0])
    np.testing.assert_array_equal(whole[1], blocks[1])


@pytest.mark.parametrize("combine", ["logmeanexp", "max"])
def test_the_strongest_candidates_are_those_of_the_known_scores(combine: str) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 400)).astype(np.float32) / 10
    ids = np.argsort(-scores, axis=1)[:, :80]
    kept = strongest(ids, np.take_along_axis(scores, ids, 1), combine, 0.1, 40)
    best = np.argsort(-combined(scores, combine, 0.1))[:10]
    assert len(kept) == 40
    assert (np.diff(kept) > 0).all()
    assert set(best) <= set(kept)
    everything = strongest(ids, np.take_along_axis(scores, ids, 1), combine, 0.1, 400)
    assert everything.tolist() == np.unique(ids).tolist()


def test_words_of_any_text_are_found() -> None:
    text = " ab\tc\n" + "x" * 130 + "  éé "
    words = [text[start:end] for start, end in word_spans(text)]
    assert words == ["ab", "c", "x" * 64, "x" * 64, "xx", "éé"]
    assert word_spans(" \n").shape == word_blocks("").shape == (0, 2)
    long = " ".join(["word"] * 40_000)
    blocks = word_blocks(long)
    assert blocks[0, 0] == 0
    assert blocks[-1, 1] == len(long)
    assert len(blocks) > 2
    assert all(long[end:start] == " " for (_, end), (start, _) in pairwise(blocks.tolist()))


def test_a_text_of_ten_megabytes_is_answered(retriever: xmc.Retriever) -> None:
    text = "red and blue things " * 100_000 + "cyan " * 20 + "a grey thing " * 600_000
    assert len(text) > 9_000_000
    answer = retriever.answer([text], k=3, passages=PassageOptions(tokens=64, stride=64, combine="max"), explain=True)
    assert answer.explanation is not None
    said = dict(zip(answer.uids[0], answer.explanation[0], strict=True))
    assert "cyan cyan" in said["CYAN"][0].text
    assert len(said["CYAN"][0].text) <= 200


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: xmc.Query(passages=[]), "at least one text"),
        (lambda: xmc.Query(passages="red"), "must be a list"),
        (lambda: xmc.Query(passages=["red", 3]), "must be strings"),
        (lambda: xmc.Query(["red"], passages=["blue"]), "beside them"),
        (lambda: xmc.Query(passages=["red"], combine="mean"), "combine must be one of"),
        (lambda: xmc.Query(passages=["red"], temperature=0), "above 0"),
        (lambda: xmc.Query(passages=["red"], temperature="hot"), "must be a number"),
        (lambda: xmc.Query(["red"]).minus(3), "can be subtracted"),
        (lambda: xmc.Query(["red"]).minus(xmc.Query(["blue"]).minus("cyan")), "subtract its parts"),
        (lambda: PassageOptions(tokens=0), "tokens of passages"),
        (lambda: PassageOptions(tokens=True), "tokens of passages"),
        (lambda: PassageOptions(stride=-1), "stride of passages"),
        (lambda: PassageOptions(tokens=8, stride=9), "leaves out"),
        (lambda: PassageOptions(temperature=float("nan")), "above 0"),
    ],
)
def test_bad_passages_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_passages_are_refused_where_there_is_nothing_to_cut(
    retriever: xmc.Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PassageOptions(tokens=2)
    with pytest.raises(InputError, match="leave passages out for embeddings"):
        retriever.predict(retriever.embed_queries(["red"]), passages=options)
    with pytest.raises(InputError, match="query 1 is empty"):
        retriever.predict(["red", xmc.Query(passages=["blue", " "])])
    with pytest.raises(InputError, match="query 0 is empty"):
        retriever.predict([" "], passages=options)
    assert retriever.predict([" "], passages=options, allow_empty=True)[0].shape == (1, 10)
    with pytest.raises(InputError, match="diversity"):
        retriever.predict(["red and blue"], passages=options, diversity=0.5)
    with pytest.raises(InputError, match="leave passages out for embeddings"):
        retriever.similar_labels(["RED"], passages=options)
    monkeypatch.setattr(passages, "MOST_PASSAGES", 3)
    with pytest.raises(InputError, match="more than 3; give it in parts"):
        retriever.predict(["red and blue or grey things there"], passages=options)


def test_examples_of_docstrings() -> None:
    for module in (passages, queries):
        assert doctest.testmod(module).failed == 0
