"""Queries as columns and tables of other libraries, and predictions as tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from frames import COLUMNS, TABLES, column_of, table_of
from worlds import calibrated_run, colours

import xmc
from xmc.errors import DataError, InputError

TEXTS = ["a red boat", "pink and blue", "été in cyan"]


@pytest.fixture(scope="module")
def r(run: Path) -> xmc.Retriever:
    return xmc.Retriever.load(run)


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_of_any_kind_is_a_list_of_texts(r: xmc.Retriever, kind: str) -> None:
    labels, scores = r.predict(TEXTS, k=3)
    column = column_of(kind, TEXTS)
    found = r.predict(column, k=3)
    assert found[0].tolist() == labels.tolist()
    np.testing.assert_array_equal(found[1], scores)
    np.testing.assert_array_equal(r.embed_queries(column), r.embed_queries(TEXTS))
    assert r.predict_table(column, k=3)["labels"].to_pylist() == labels.tolist()


@pytest.mark.parametrize("library", TABLES)
def test_a_table_of_any_library_is_answered_row_by_row(r: xmc.Retriever, library: str) -> None:
    labels, scores = r.predict(TEXTS, k=2)
    table = r.predict_table(table_of(library, {"uid": ["a", "b", "c"], "text": TEXTS, "n": [1, 2, 3]}), k=2)
    kinds = [("uid", pa.string()), ("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))]
    assert table.schema == pa.schema(kinds)
    assert table["uid"].to_pylist() == ["a", "b", "c"]
    assert table["labels"].to_pylist() == labels.tolist()
    np.testing.assert_array_equal(np.array(table["scores"].to_pylist(), np.float32), scores)


def test_columns_that_are_named_and_what_is_asked_for_beside_labels(r: xmc.Retriever) -> None:
    given = pa.table({"key": [7, 8, 9], "body": TEXTS})
    table = r.predict_table(given, k=2, text="body", uid="key", label_texts=True, where='uid != "RED"')
    assert table.column_names == ["uid", "labels", "scores", "texts"]
    assert table["uid"].to_pylist() == ["7", "8", "9"]
    assert "RED" not in {label for row in table["labels"].to_pylist() for label in row}
    assert table["texts"].to_pylist() == [r.texts(row) for row in table["labels"].to_pylist()]
    assert r.predict_table(given, text="body", k=1).column_names == ["labels", "scores"]
    assert r.predict_table([], k=3).num_rows == 0


def test_the_columns_of_the_training_data_are_found(run: Path) -> None:
    r = xmc.Retriever.load(run)
    assert r.metrics.training is not None
    r.metrics = replace(r.metrics, training=replace(r.metrics.training, columns={"text": "body"}))
    table = pa.table({"body": ["red"], "text": ["blue"]})
    assert r.predict_table(table, k=1)["labels"].to_pylist() == [["RED"]]
    assert r.predict_table(table.select(["text"]), k=1)["labels"].to_pylist() == [["BLUE"]]


def test_parts_of_a_calibrated_run(tmp_path: Path) -> None:
    r = xmc.Retriever.load(calibrated_run(colours(), tmp_path / "run", candidates=12))
    table = r.predict_table(pa.table({"text": TEXTS}), k=2, probabilities=True)
    assert table.column_names == ["labels", "scores", "probabilities"]
    _, probabilities = r.predict_proba(TEXTS, k=2)
    np.testing.assert_array_equal(np.array(table["probabilities"].to_pylist(), np.float32), probabilities)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (pa.table({"text": TEXTS}), InputError, r"with the columns text; name one of them, such as table\['text'\]"),
        (pa.array(["red", None]), InputError, r"query 1 is None, of type NoneType"),
        (pa.array([1, 2]), InputError, r"query 0 is 1, of type int"),
        (pa.array([b"r\xff"], pa.binary()).view(pa.string()), InputError, r"queries must be a list of texts.* 'utf-8'"),
        (np.array([b"red"]), InputError, r"query 0 is .*b'red'"),
    ],
)
def test_queries_that_are_no_texts(r: xmc.Retriever, given: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        r.predict(given)


def test_tables_that_have_no_texts(r: xmc.Retriever) -> None:
    for given, kind, message in (
        (pa.table({"title": TEXTS}), DataError, r"the table of queries has no column 'text', only title"),
        (pa.table({"text": [1]}), DataError, r"the column 'text' is of type int64; strings are needed"),
        (pa.table({"text": ["red", None]}), InputError, r"query 1 is None"),
        (pa.table({"text": ["red"], "uid": [[1]]}), DataError, r"the column 'uid' is of type list"),
    ):
        with pytest.raises(kind, match=message):
            r.predict_table(given)
    with pytest.raises(InputError, match="The column 'title' is named, but queries are no table; leave it out"):
        r.predict_table(TEXTS, text="title")
