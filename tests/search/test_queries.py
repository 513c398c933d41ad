"""Queries of several parts, and labels like others, against sums in plain numpy."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import colours, tiny_config

import xmc
from xmc.errors import InputError
from xmc.search import queries


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> xmc.Retriever:
    directory: Path = tmp_path_factory.mktemp("queries") / "run"
    xmc.train(colours(), tiny_config(epochs=4), directory)
    return xmc.Retriever.load(directory)


def label_vectors(retriever: xmc.Retriever, *uids: str) -> Any:
    return retriever.embeddings[retriever.labels.rows(uids)]


def test_a_query_is_the_weighted_sum_of_its_parts(retriever: xmc.Retriever) -> None:
    red, sea, boat = retriever.embed_queries(["red", "deep blue sea", "boat"])
    vector = np.random.default_rng(0).normal(size=32)
    asked = [
        "red",
        xmc.Query(texts={"red": 1.0, "deep blue sea": -0.25}, labels={"PINK": 0.7}, embeddings=[(vector, 0.3)]),
        xmc.Query(texts=["red", "boat"]),
        xmc.Query(labels=["PINK", "CYAN", "PINK", "GREY"]),
        xmc.Query(embeddings=[(vector, -2), (red, 0.5)]),
        "boat",
    ]
    pink, cyan, grey = label_vectors(retriever, "PINK", "CYAN", "GREY")
    expected = np.stack(
        [
            red,
            red - 0.25 * sea + 0.7 * pink + 0.3 * vector,
            (red + boat) / 2,
            (2 * pink + cyan + grey) / 4,
            -2 * vector + 0.5 * red,
            boat,
        ]
    )
    np.testing.assert_allclose(retriever.embed_queries(asked), expected, rtol=1e-5, atol=1e-6)
    labels, scores = retriever.predict(asked, k=12)
    all_scores = expected @ retriever.embeddings.T
    np.testing.assert_allclose(scores, -np.sort(-all_scores, axis=1), rtol=1e-4, atol=1e-5)
    for row in (0, 5):
        plain = retriever.predict([asked[row]], k=12)
        assert labels[row].tolist() == plain[0][0].tolist()
        np.testing.assert_array_equal(scores[row], plain[1][0])


def test_all_texts_are_encoded_in_one_call() -> None:
    calls: list[list[str]] = []

    def encode(texts: list[str]) -> Any:
        calls.append(texts)
        return np.eye(3, dtype=np.float32)[[len(text) for text in texts]]

    asked = ["a", xmc.Query({"a": 0.5, "bb": 2}), xmc.Query(["bb"]), ""]
    found = queries.embed(asked, encode, encode, 3, allow_empty=True)
    assert calls == [["a", "bb", ""]]
    np.testing.assert_array_equal(found, [[0, 1, 0], [0, 0.5, 2], [0, 0, 1], [1, 0, 0]])


def test_a_negative_example_lowers_what_is_like_it(retriever: xmc.Retriever) -> None:
    both = retriever.predict(["red and blue"], k=12)[0][0].tolist()
    less = retriever.predict([xmc.Query({"red and blue": 1, "blue": -0.8})], k=12)[0][0].tolist()
    assert set(both[:2]) == {"RED", "BLUE"}
    assert less[0] == "RED"
    assert less.index("BLUE") > 5


def test_similar_labels(retriever: xmc.Retriever) -> None:
    uids = ["PINK", "RED", "PINK"]
    labels, scores = retriever.similar_labels(uids, k=4)
    assert labels.shape == scores.shape == (3, 4)
    every = retriever.labels.uids.to_pylist()
    for uid, found, values in zip(uids, labels, scores, strict=True):
        products = label_vectors(retriever, uid)[0] @ retriever.embeddings.T
        best = [every[row] for row in np.argsort(-products) if every[row] != uid][:4]
        assert found.tolist() == best
        np.testing.assert_allclose(values, [products[every.index(uid)] for uid in best], rtol=1e-5)
    narrowed = retriever.similar_labels(["PINK", "RED"], k=12, include=["RED", "GREY", "CYAN"], exclude=[["GREY"], []])
    assert [{uid for uid in row if uid} for row in narrowed[0]] == [{"RED", "CYAN"}, {"GREY", "CYAN"}]
    assert retriever.similar_labels([], k=3)[0].shape == (0, 3)
    with pytest.raises(InputError, match="no label 'MAUVE'"):
        retriever.similar_labels(["RED", "MAUVE"])
    with pytest.raises(InputError, match="put a single uid into a list"):
        retriever.similar_labels("RED")
    with pytest.raises(InputError, match="exclude has 1 lists of uids for 2 queries"):
        retriever.similar_labels(["RED", "PINK"], exclude=[["RED"]])


def test_mistakes(retriever: xmc.Retriever) -> None:
    with pytest.raises(InputError, match="at least one text, label or embedding"):
        xmc.Query()
    with pytest.raises(InputError, match=r"weight of the text 'a' must be finite.*nan"):
        xmc.Query({"a": float("nan")})
    with pytest.raises(InputError, match=r"weight of the label 'a' must be finite.*1e\+200"):
        xmc.Query(labels={"a": 1e200})
    with pytest.raises(InputError, match="weight of the text 'a' must be a number, but is 'much'"):
        xmc.Query({"a": "much"})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="texts of a Query must be a list"):
        xmc.Query("a")
    with pytest.raises(InputError, match="must be strings, but 3 is of type int"):
        xmc.Query([3])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"must be strings, but \{\} is of type dict"):
        xmc.Query([{}])  # type: ignore[list-item]
    for part in ("texts", "labels", "passages"):
        with pytest.raises(InputError, match=f"The {part} of a Query must be strings, but None is of type NoneType"):
            xmc.Query(**{part: ["red", None]})
    with pytest.raises(InputError, match="named by uids, which are strings, but None is of type NoneType"):
        retriever.predict(["red"], exclude=["PINK", None])
    for wrong in (True, 3, iter("ab")):
        for part in ("texts", "labels", "embeddings", "passages"):
            with pytest.raises(InputError, match=f"The {part} of a Query must be a list"):
                xmc.Query(**{part: wrong})
    with pytest.raises(InputError, match="pairs"):
        xmc.Query(embeddings=np.zeros((2, 32)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"shape \(32,\), but has \(3,\)"):
        retriever.predict([xmc.Query(embeddings=[([1, 2, 3], 1.0)])])
    with pytest.raises(InputError, match="no label 'MAUVE'"):
        retriever.predict(["red", xmc.Query(labels=["MAUVE"])])
    with pytest.raises(InputError, match="put a single Query into a list"):
        retriever.predict(xmc.Query(["red"]))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="query 1 is 3, of type int"):
        retriever.predict(["red", 3])  # type: ignore[list-item]
    for texts, uids, message in (
        ("mauve", None, "texts must be a list of label texts; put a single text into a list"),
        (["mauve"], "m", "uids must be a list of label uids; put a single uid into a list"),
        (["mauve"], [3], "uids must be strings, but at 0 is 3, of type int"),
        (["red", "\ud800"], None, r"texts must be UTF-8, but at 1 is '\\ud800'\. Correct it"),
    ):
        with pytest.raises(InputError, match=message):
            retriever.add_labels(texts, uids)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"texts must be UTF-8, but at 0 is '\\ud800'"):
        retriever.update_labels(["\ud800"], ["RED"])
    with pytest.raises(InputError, match="query 0 is None, of type NoneType"):
        retriever.predict([None])  # type: ignore[list-item]


def test_the_documented_example() -> None:
    assert doctest.testmod(queries).failed == 0


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ([""], "The text of query 0 is empty"),
        (["red", " \n"], "The text of query 1 is empty"),
        ([xmc.Query(texts={"red": 1.0, "": -0.5})], "The text of query 0 is empty"),
        (["red", None], "query 1 is None, of type NoneType"),
        (["red", 7], "query 1 is 7, of type int"),
        (["red", b"red"], "query 1 is b'red', of type bytes"),
        ([["red"]], r"query 0 is \['red'\], of type list"),
        ({"red", "blue"}, "in the order of the answers, but given is {.*of type set"),
        ({"red": 1.0}, "of type dict"),
        (b"red", "of type bytes"),
        (None, "given is None, of type NoneType"),
        (5, "given is 5, of type int"),
        ("red", "put a single text into a list"),
        (np.array("red"), "of type ndarray"),
        (np.array([["red"]]), "of type ndarray"),
        (["\ud800"], "The text of query 0 cannot be written as UTF-8"),
    ],
)
def test_bad_queries(retriever: xmc.Retriever, queries: Any, message: str) -> None:
    for ask in (retriever.predict, retriever.search, retriever.answer):
        with pytest.raises(InputError, match=message):
            ask(queries)  # type: ignore[operator]


def test_queries_of_any_kind_that_has_an_order(retriever: xmc.Retriever) -> None:
    texts = ["red", "deep blue sea"]
    labels, scores = retriever.predict(texts, k=3)
    for same in (tuple(texts), np.array(texts), np.array(texts, object), iter(texts), dict.fromkeys(texts).keys()):
        if not isinstance(same, type({}.keys())):
            np.testing.assert_array_equal(retriever.predict(same, k=3)[0], labels)  # type: ignore[arg-type]
    labels, scores = retriever.predict(["red", ""], k=3, allow_empty=True)
    assert np.isfinite(scores).all()
    assert retriever.embed_queries(["red", ""]).shape == (2, 32)


@pytest.mark.parametrize("texts", [{"a", "b"}, None, ["a", None], [b"a"], "a"])
def test_labels_that_are_not_a_list_of_texts(retriever: xmc.Retriever, texts: Any) -> None:
    with pytest.raises(InputError, match=r"texts must be "):
        retriever.add_labels(texts)
