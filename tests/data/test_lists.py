"""Data sets from Python's lists: what does not fit is an error of xmc's, with the place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xmc.data.dataset import Dataset, opened
from xmc.errors import DataError, InputError, XMCError

LABELS = ["cat", "dog"]
TRAIN = (["a cat", "a dog"], [[0], [1]])


def test_lists_of_any_kind_that_has_an_order_are_taken() -> None:
    expected = Dataset.from_lists("x", LABELS, {"train": TRAIN})
    texts, rows = np.array(TRAIN[0]), [np.array([0, 0], np.int8), {1}]
    same = Dataset.from_lists("x", tuple(LABELS), {"train": [texts, rows]}, label_uids=np.array(["0", "1"]))
    assert same.fingerprint == expected.fingerprint
    assert Dataset.from_lists("x", iter(LABELS), {"train": (iter(TRAIN[0]), TRAIN[1])}).fingerprint == same.fingerprint
    pictures = Dataset.from_lists("x", LABELS, {"train": ([None, "a dog"], TRAIN[1])})  # of an image alone
    assert pictures.split("train").texts.to_pylist() == [None, "a dog"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"splits": {"train": (TRAIN[0], [["cat"], ["dog"]])}},
            r"at 0 is \['cat'\]. Where labels are strings, number them",
        ),
        ({"splits": {"train": (TRAIN[0], [[0], "1"])}}, "The labels of the split 'train' .* at 1 is '1'"),
        ({"splits": {"train": (TRAIN[0], [0, 1])}}, "at 0 is 0"),
        ({"splits": {"train": (TRAIN[0], [[0], [1.0]])}}, r"at 1 is \[1.0\]"),
        ({"splits": {"train": (TRAIN[0], [[0], [True]])}}, r"at 1 is \[True\]"),
        ({"splits": {"train": (TRAIN[0], [[0], None])}}, "at 1 is None"),
        ({"splits": {"train": (TRAIN[0], [[0], {1: 2.0}])}}, r"at 1 is {1: 2.0}"),
        ({"splits": {"train": (TRAIN[0], [[0], np.array(["dog"])])}}, "at 1 is array"),
        ({"splits": {"train": (TRAIN[0], np.eye(2))}}, r"at 0 is array\(\[1., 0.\]\)"),
        ({"splits": {"train": (TRAIN[0], [[0], [2**40]])}}, "does not fit 32 bits"),
        ({"splits": {"train": (TRAIN[0], [[0]])}}, "2 texts and 1 lists of labels"),
        ({"splits": {"train": (TRAIN[0], 5)}}, "must be a list of lists, but given is 5, of type int"),
        ({"splits": {"train": ("a cat", [[0]])}}, "must be a list of texts, but given is 'a cat', of type str"),
        ({"splits": {"train": ({"a cat", "a dog"}, TRAIN[1])}}, "must be a list of texts, but given is {.*of type set"),
        ({"splits": {"train": (["a cat", 7], TRAIN[1])}}, "at 1 is 7, of type int"),
        ({"splits": {"train": (["a cat", "\ud800"], TRAIN[1])}}, "must be UTF-8, but at 1"),
        (
            {"splits": {"train": TRAIN[0]}},
            r"must be lists of row numbers .* at 0 is 'a dog'|2 texts and|must be a list of texts",
        ),
        ({"splits": {"train": (*TRAIN, [])}}, r"must be a pair \(texts, labels\)"),
        ({"splits": [TRAIN]}, "splits must be a mapping such as"),
        ({"label_texts": "cat"}, "label_texts must be a list of texts, but given is 'cat'"),
        ({"label_texts": {"cat", "dog"}}, "label_texts must be a list of texts, but given is {"),
        ({"label_texts": {"cat": 0, "dog": 1}}, "of type dict"),
        ({"label_texts": None}, "given is None, of type NoneType"),
        ({"label_uids": ["a"]}, "label_uids has 1 uids for 2 texts"),
        ({"label_uids": ["a", "a"]}, "label_uids has 'a' more than once"),
        ({"label_uids": ["a", None]}, "label_uids has 1 uids for 2 texts"),
        ({"label_uids": "ab"}, "label_uids must be a list of texts"),
        ({"query_uids": {"train": ["q", "q"]}}, "query_uids of the split 'train' has 'q' more than once"),
        ({"query_uids": ["p", "q"]}, "query_uids must be a mapping by split, but is a list"),
        ({"query_uids": {"test": ["p", "q"]}}, "query_uids names the split 'test', which is not in splits"),
        ({"rejected": {"train": [["dog"], []]}}, r"The rejected labels of the split 'train' .* at 0 is \['dog'\]"),
        ({"rejected": {"train": [[1]]}}, "2 texts and 1 lists of rejected labels"),
        ({"filters": {"train": [[0, 1, 2]]}}, r"must be pairs .*\[m, 2\]"),
        ({"filters": {"train": [["0", "1"]]}}, "whole numbers"),
        ({"filters": {"train": [[-1, 0]]}}, "negative"),
    ],
)
def test_what_does_not_fit_is_an_error_with_its_place(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"label_texts": LABELS, "splits": {"train": TRAIN}, **changes}
    with pytest.raises(InputError, match=message):
        Dataset.from_lists("x", **arguments)


def test_a_data_set_may_be_named() -> None:
    data = Dataset.load("wordnet-8k")
    assert opened(data) is data
    assert opened("wordnet-8k").fingerprint == data.fingerprint
    with pytest.raises(DataError, match="dd is neither a shipped data set"):
        opened("dd")
    for given in (None, 5, {"train": []}):
        with pytest.raises(XMCError, match="must be a Dataset, the name of a shipped one or a directory"):
            opened(given)  # type: ignore[arg-type]
