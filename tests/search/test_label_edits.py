"""Labels that are added, updated and removed as one change: as one call after the other, all of it or nothing."""

from __future__ import annotations

import datetime
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xmc
from xmc.errors import ConflictError, InputError
from xmc.search.label_edits import LabelEdits

ADD = [
    {"uid": "TURQUOISE", "text": "turquoise", "price": 3},
    {"uid": "TEAL", "examples": ["item 5 teal", "teal and red"], "negatives": ["green"], "kind": "new"},
]
UPDATE = [
    {"uid": "RED", "text": "crimson", "price": 1},
    {"uid": "BLUE", "price": 2},
    {"uid": "PINK", "examples": ["x"]},
]
REMOVE = ["GREEN", "CYAN"]


@pytest.fixture
def retriever(run: Path) -> xmc.Retriever:
    return xmc.Retriever.load(run)


def content(retriever: xmc.Retriever) -> tuple[list[dict[str, Any]], bytes]:
    return retriever.labels.table.to_pylist(), retriever.embeddings.tobytes()


def test_one_change_is_the_calls_one_after_the_other(retriever: xmc.Retriever, run: Path) -> None:
    number = retriever.labels.number
    scalings = retriever.change_labels(ADD, UPDATE, REMOVE)
    assert retriever.labels.number == number + 1
    calls = xmc.Retriever.load(run)
    calls.remove_labels(REMOVE)
    scaled = calls.update_labels(["crimson", "pink"], ["RED", "PINK"], examples=[None, ["x"]])
    calls.set_columns({"uid": ["RED", "BLUE"], "price": [1, 2]})
    scaled += calls.add_labels(
        ["turquoise", None],
        ["TURQUOISE", "TEAL"],
        {"price": [3, None], "kind": [None, "new"]},
        examples=[None, ADD[1]["examples"]],  # type: ignore[list-item]
        negatives=[None, ["green"]],
    )
    assert content(retriever) == content(calls)
    assert scalings == scaled
    assert len(scalings) == 4
    assert retriever.predict(["turquoise"], 1)[0].tolist() == [["TURQUOISE"]]


@pytest.mark.parametrize(
    ("edits", "error", "message"),
    [
        ({"add": [*ADD, {"text": "red", "uid": "RED"}]}, ConflictError, "'RED' is already there; update it"),
        ({"add": ADD, "remove": ["NOBODY", "RED"]}, ConflictError, r"no label 'NOBODY' to remove \(1 not found\)"),
        ({"add": ADD, "update": [{"uid": "NOBODY", "text": "x"}]}, ConflictError, "no label 'NOBODY' to update"),
        ({"update": [{"uid": "RED", "text": "x"}], "remove": ["RED"]}, InputError, "'RED' is named twice in one"),
        ({"add": [*ADD, {"uid": "X"}], "remove": ["RED"]}, InputError, "'X' has neither a text nor an example"),
        ({"add": [{"text": "x", "uid": 5}]}, InputError, r"uid of add\[0\] must be strings, but at 0 is 5"),
        ({"add": [{"text": "x", "uid": "\udcff"}]}, InputError, r"uid of add\[0\] must be UTF-8"),
        ({"add": [{"text": "x", "uid": ""}]}, InputError, r"uid of add\[0\] is empty"),
        ({"add": [{"examples": ["x"]}]}, InputError, r"add\[0\] has no uid"),
        ({"add": ["x"]}, InputError, r"add\[0\] must be a dictionary such as"),
        ({"add": {"uid": "x", "text": "x"}}, InputError, "add must be a list of records; put a single one"),
        ({"update": [{"uid": "RED"}], "remove": ["BLUE"]}, InputError, r"update\[0\] says nothing beside its uid"),
        ({"remove": "RED"}, InputError, "remove must be a list of label uids"),
        ({"add": [{"uid": "X", "examples": "x"}]}, InputError, "examples of the label 'X' must be a list of queries"),
        (
            {"add": [{"uid": "X", "text": "x", "id": 5}], "remove": ["RED"]},
            InputError,
            "A column cannot be called 'id'",
        ),
        ({"update": [{"uid": "RED", "text": "x", "size": [1, "x"]}]}, InputError, "column 'size' are not of one type"),
        ({"add": [{"uid": "X", "text": "x", "price": "dear"}], "remove": ["RED"]}, InputError, "'price' .* type int64"),
    ],
)
def test_all_or_nothing(retriever: xmc.Retriever, edits: Any, error: type[Exception], message: str) -> None:
    retriever.set_columns({"uid": ["RED"], "price": [1]})
    before, number = content(retriever), retriever.labels.number
    with pytest.raises(error, match=message):
        retriever.change_labels(**edits)
    assert content(retriever) == before
    assert retriever.labels.number == number


def test_texts_are_uids_and_strings_are_dates(retriever: xmc.Retriever) -> None:
    day = datetime.date(2024, 2, 29)
    retriever.set_columns({"uid": ["RED"], "since": [day]})
    retriever.change_labels(
        [{"text": "turquoise", "since": "2024-03-01"}],
        [{"uid": "BLUE", "since": "2024-02-29"}, {"uid": "RED", "since": None}],
    )
    rows = {row["uid"]: row for row in retriever.labels.table.to_pylist()}
    assert rows["turquoise"]["since"] == datetime.date(2024, 3, 1)
    assert (rows["BLUE"]["since"], rows["RED"]["since"], rows["PINK"]["since"]) == (day, None, None)


def test_edits_are_fitted_to_other_labels(retriever: xmc.Retriever) -> None:
    edits = LabelEdits.read(
        [{"uid": "RED", "text": "crimson"}, *ADD], [{"uid": "GONE", "text": "x"}, UPDATE[1]], ["AWAY", "PINK"]
    )
    fitted, said = edits.fitted(retriever.labels)
    assert said == [
        "the label 'RED' was there and is updated",
        "there is no label 'GONE' any more",
        "there is no label 'AWAY' any more",
    ]
    assert ([record["uid"] for record in fitted.update], fitted.remove) == (["BLUE", "RED"], ("PINK",))
    retriever.apply(retriever.prepare_edits(fitted).change)
    assert retriever.texts(["RED", "TURQUOISE"]) == ["crimson", "turquoise"]
    assert fitted.fitted(xmc.Retriever.from_model(retriever.model, ["BLUE"], ["b"], retriever.config).labels)[1][0] == (
        "there is no label 'RED' any more"
    )


def test_a_search_sees_all_of_a_change(retriever: xmc.Retriever) -> None:
    """Labels change hands in one change; every version that a thread sees has exactly one of the two."""
    retriever.change_labels([{"text": "turquoise 0"}])
    seen: list[int] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            found = retriever.labels.uids.to_pylist()
            seen.append(sum(uid.startswith("turquoise") for uid in found))

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(60):
        retriever.change_labels([{"text": f"turquoise {number + 1}"}], remove=[f"turquoise {number}"])
    stop.set()
    reader.join()
    assert set(seen) == {1}
    assert np.isfinite(retriever.embeddings).all()
