"""Data sets from tables of pandas, Polars, DuckDB, pyarrow and Hugging Face, by the rules of files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from frames import TABLES, table_of
from worlds import COLOURS, tiny_config

import xmc
from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.readers import TabularColumns, open_source
from xmc.errors import ConfigError, DataError, InputError

ROWS: dict[str, list[Any]] = {
    "key": ["q1", "q2", "q3"],
    "body": ["a boat", 'a "soft"\ncheese', "bread, and law"],
    "tags": [["sea"], ["meal", "milk"], ["meal", "law", "meal"]],
}


def contents(data: Dataset, split: str = "train") -> dict[str, Any]:
    """All that is known of a split, by uids."""
    queries, labels = data.split(split), data.labels.uids.to_pylist()

    def named(matrix: Any) -> list[dict[str, float]]:
        rows = (matrix[row].tocoo() for row in range(matrix.shape[0]))
        return [{labels[c]: float(v) for c, v in zip(row.col, row.data, strict=True)} for row in rows]

    return {
        "uids": queries.uids.to_pylist(),
        "texts": queries.texts.to_pylist(),
        "positives": named(queries.positives),
        "rejected": named(queries.rejected),
        "labels": list(zip(labels, data.labels.texts.to_pylist(), strict=True)),
    }


@pytest.mark.parametrize("library", TABLES)
def test_a_table_of_any_library_is_a_data_set(library: str) -> None:
    data = Dataset.from_arrow(table_of(library, ROWS), text="body", labels="tags", uid="key", name="mine")
    assert contents(data) == {
        "uids": ["q1", "q2", "q3"],
        "texts": ROWS["body"],
        "positives": [{"sea": 1.0}, {"meal": 1.0, "milk": 1.0}, {"meal": 1.0, "law": 1.0}],
        "rejected": [{}, {}, {}],
        "labels": [(uid, uid) for uid in ("law", "meal", "milk", "sea")],
    }
    assert (data.name, data.splits) == ("mine", ("train",))
    assert data.source_columns["text"] == "body"


def test_splits_strings_relevance_rejected_and_a_label_table() -> None:
    train = {"text": ["a", "b"], "labels": ["sea|meal", "meal"], "relevance": [[0.5, 0.0], [1.0]], "bad": ["law", None]}
    labels = table_of("pandas", {"code": ["law", "meal", "sea"], "name": ["the law", "food", "ships"]})
    data = Dataset.from_arrow(
        pa.table(train), separator="|", rejected="bad", label_table=labels, label_uid="code", label_text="name"
    )
    assert contents(data) == {
        "uids": ["0", "1"],
        "texts": ["a", "b"],
        "positives": [{"sea": 0.5}, {"meal": 1.0}],
        "rejected": [{"law": 1.0, "meal": 1.0}, {}],
        "labels": [("law", "the law"), ("meal", "food"), ("sea", "ships")],
    }
    two = Dataset.from_arrow(
        {
            "train": table_of("polars", {"text": ["a"], "labels": ["sea"]}),
            "test": pa.table({"text": ["c"], "labels": ["law"]}),
        }
    )
    assert two.splits == ("train", "test")
    assert contents(two, "test")["positives"] == [{"law": 1.0}]


def test_the_rules_are_those_of_files(tmp_path: Path) -> None:
    """The same table in memory and in a file: the same data set, to the fingerprint, or the same refusal."""
    rng = np.random.default_rng(0)
    rows = {
        "uid": [f"u{row}" for row in range(500)],
        "text": [None if row % 50 == 7 else f"item {row}" for row in range(500)],
        "labels": [[COLOURS[c] for c in rng.choice(12, rng.integers(0, 4))] for _ in range(500)],
        "rejected": [["black"] if row % 9 == 0 else None for row in range(500)],
    }
    rows["labels"][3] = ["red", None]
    rows["uid"][5] = None
    rows["uid"][40] = "u39"
    table = pa.table(rows)
    pq.write_table(table, tmp_path / "all.parquet")
    from_file = convert(open_source(tmp_path / "all.parquet"), tmp_path / "data", on_bad_row="drop")
    data = Dataset.from_arrow(table, on_bad_row="drop")
    assert contents(data) == contents(from_file.dataset)
    assert data.fingerprint == from_file.dataset.fingerprint
    assert data.properties["left_out"] == dict(from_file.dropped)
    data.save(tmp_path / "saved")
    assert Dataset.load(tmp_path / "saved").fingerprint == data.fingerprint


def test_bad_rows_are_named_or_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    table = pa.table({"text": ["a", "b", "c"], "labels": [["x"], ["y", None], ["['x', 'y']"]], "uid": ["1", "2", "1"]})
    with pytest.raises(DataError, match=r"table train, row 2: there is a null among the labels; .*on_bad_row=.drop."):
        Dataset.from_arrow(table)
    with caplog.at_level(logging.WARNING, "xmc"):
        data = Dataset.from_arrow(table, on_bad_row="drop")
    assert contents(data)["uids"] == ["1"]
    assert data.properties["left_out"] == {"null among the labels": 1, "duplicate uid": 1}
    assert "left out: 1 x duplicate uid, 1 x null among the labels" in caplog.text
    texts = pa.table({"text": ["a"] * 5, "labels": ["x;y", "x;y", "y;z", "x", None]})
    with caplog.at_level(logging.WARNING, "xmc"):
        Dataset.from_arrow(texts)
    assert "if it is between labels, name it" in caplog.text


@pytest.mark.parametrize(
    ("given", "options", "kind", "message"),
    [
        (
            pa.table({"text": ["a"], "tags": ["x"]}),
            {},
            DataError,
            r"table train has no column 'labels', only text, tags",
        ),
        (pa.table({"text": [1], "labels": ["x"]}), {}, DataError, r"table train: the column 'text' is of type int64"),
        (pa.table({"text": ["a"], "labels": ["x"]}), {"uid": "id"}, DataError, r"no column 'id', only text, labels"),
        (pa.table({"text": ["a"], "labels": ["x"]}), {"on_bad_row": "skip"}, ConfigError, r"must be error or drop"),
        ({"text": ["a"], "labels": [["x"]]}, {}, InputError, r"'text' .*must be a table.* given is a list"),
        ([("a", ["x"])], {}, InputError, r"must be a table.* given is a list"),
        ({}, {}, InputError, r"no splits"),
        (
            pa.table({"text": ["a"], "labels": ["x"]}),
            {"label_table": pa.table({"uid": ["y"], "text": ["why"]})},
            DataError,
            r"table train, row 1: the label 'x' is not in label table",
        ),
    ],
)
def test_tables_that_are_refused(given: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Dataset.from_arrow(given, **options)


def test_what_is_trained_on_a_frame_answers_it(tmp_path: Path) -> None:
    """The names of its columns go with the run."""
    colours = [COLOURS[row % 12] for row in range(240)]
    rows = {"name": [f"item {row} {colour}" for row, colour in enumerate(colours)], "colour": colours}
    frame = table_of("pandas", rows)
    data = Dataset.from_arrow(frame, text="name", labels="colour")
    xmc.train(data, tiny_config(), tmp_path / "run")
    answers = xmc.Retriever.load(tmp_path / "run").predict_table(frame, k=1)
    found = [labels[0] for labels in answers["labels"].to_pylist()]
    assert np.mean([label == wanted for label, wanted in zip(found, colours, strict=True)]) > 0.9


def test_columns_are_called_as_in_files() -> None:
    data = Dataset.from_arrow(pa.table({"t": ["a"], "l": ["x,y"]}), "t", "l", separator=",", uid=None)
    assert data.source_columns == TabularColumns(text="t", labels="l", separator=",").named
