"""Filters by uids and by columns, against numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from brute_force import expected
from layouts import unlisted
from pyarrow import compute as pc
from worlds import COLOURS, colours, tiny_config

import xmc
from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.readers import open_source
from xmc.data.seal import seal
from xmc.errors import DataError, InputError
from xmc.indexes.factory import build_index


@pytest.fixture(scope="module")
def many(run: Path) -> xmc.Retriever:
    """264 labels in three markets, some without one, with gaps left by removed labels."""
    retriever = xmc.Retriever.load(run)
    texts = [f"{name} {number}" for name in COLOURS for number in range(25)]
    numbers = np.arange(len(texts))
    retriever.add_labels(
        texts,
        columns={"market": [("de", "fr", None)[number % 3] for number in numbers], "price": numbers / 10},
    )
    retriever.remove_labels([text for text in texts if text.endswith("5")])
    retriever.remove_labels([text for text in texts if text.endswith("7")])
    return retriever


@pytest.mark.parametrize("share", [1.0, 0.5, 0.03, 0.0])
@pytest.mark.parametrize("design", ["exact", "HNSW8"])
def test_filters_against_numpy(many: xmc.Retriever, share: float, design: str) -> None:
    rng = np.random.default_rng(1)
    retriever = many.exact()
    index = build_index(design, 32)
    index.build(many.embeddings, many.labels.ids)
    retriever.use_index(index)
    queries, labels = ["red 3", "blue and green", "pink"], len(retriever)
    uids = np.array(retriever.labels.uids.to_pylist(), object)
    table = retriever.labels.table.to_pylist()

    def check(allowed: Any, **filters: Any) -> None:
        for k in (1, 10, labels + 5):
            found, scores = retriever.predict(queries, k, **filters)
            assert found.shape == (3, min(k, labels))
            best = expected(retriever, queries, k, allowed)
            if design == "exact":
                np.testing.assert_allclose(scores, best[1], rtol=1e-5)
                assert found.tolist() == best[0]
            counts = np.broadcast_to(allowed, (3, labels)).sum(axis=1)
            assert [sum(uid is not None for uid in row) for row in found] == np.minimum(k, counts).tolist()
            permitted = [set(uids[row]) for row in np.broadcast_to(allowed, (3, labels))]
            assert all({uid for uid in row if uid} <= good for row, good in zip(found, permitted, strict=True))

    chosen = rng.random(labels) < share
    each = rng.random((3, labels)) < share
    under, german = (
        np.array([row["price"] is not None and row["price"] < 25 * share for row in table]),
        np.array([row["market"] == "de" for row in table]),
    )
    check(chosen[None], include=list(uids[chosen]))
    check(chosen[None], include=chosen)
    check(chosen[None], include={*uids[chosen], "no such label"})
    check(~chosen[None], exclude=uids[chosen])
    check(~chosen[None] & german, exclude=chosen, where="market == 'de'")
    check(each, include=[uids[row].tolist() for row in each])
    check(~each, exclude=[set(uids[row]) for row in each])
    check((each & ~chosen) & under, include=list(each), exclude=chosen, where=f"price < {25 * share}")
    check((chosen & ~each) & german, include=chosen, exclude=list(each), where=pc.field("market") == "de")
    check(under[None], where=f"price < {25 * share}")


def test_filters_of_one_label_and_of_none(many: xmc.Retriever) -> None:
    found, scores = many.predict(["red", "blue"], k=3, include=["PINK"])
    assert found.tolist() == [["PINK", None, None]] * 2
    assert np.isneginf(scores[:, 1:]).all()
    assert many.predict(["red"], k=3, include=[])[0].tolist() == [[None] * 3]
    assert many.predict(["red"], k=3, where="market == 'nowhere'")[0].tolist() == [[None] * 3]
    assert many.search(["red"], k=2, include=["PINK"])[0].tolist() == [[7, -1]]
    top = many.predict(["red"], k=1)[0][0, 0]
    assert top not in many.predict(["red"], k=300, exclude=[top])[0][0]
    diverse = many.predict(["red"], k=5, where="price >= 0", diversity=0.5)[0][0].tolist()
    assert len(set(diverse)) == 5
    for filters, message in (
        ({"include": "RED"}, "put a single uid into a list"),
        ({"include": ["RED", ["BLUE"]]}, "but holds both"),
        ({"include": [["RED"], ["BLUE"]]}, "include has 2 lists of uids for 1 queries"),
        ({"exclude": [3]}, "3 is of type int"),
        ({"exclude": np.ones(5, bool)}, r"mask of shape \(5,\), but there are 264 labels"),
        ({"where": "prize < 3"}, r"uid \(string\), text \(string\), market \(string\), price \(double\)"),
        ({"where": "market < 3"}, "has no kernel matching"),
        ({"where": "market"}, "must evaluate to bool"),
        ({"where": 3}, "but is of type int"),
        ({"diversity": 2}, "diversity must lie between 0 and 1"),
        ({"rescore": -1}, "rescore must be at least 0"),
    ):
        with pytest.raises(InputError, match=message):
            many.predict(["red"], **filters)  # type: ignore[arg-type]


def test_columns(run: Path, tmp_path: Path) -> None:
    retriever = xmc.Retriever.load(run)
    assert retriever.labels.columns.names == ["uid", "text"]
    retriever.add_labels(["dark red", "dark blue"], ["DR", "DB"], columns={"dark": [True, True], "tags": [["a"], []]})
    retriever.set_columns({"uid": ["DB", "RED"], "price": [1, 2]})
    retriever.set_columns(pa.table({"uid": ["RED", "PINK"], "price": [2.5, None], "dark": [False, None]}))
    retriever.update_labels(["deep dark red"], ["DR"])
    retriever.add_labels(["dark grey"], ["DG"], columns={"price": [7.0]})
    assert retriever.predict(["red"], k=3, where="dark")[0].tolist() == [["DR", "DB", None]]
    assert retriever.predict(["red"], k=2, where="not dark")[0].tolist() == [["RED", None]]
    assert set(retriever.predict(["red"], k=4, where="price > 0.5")[0][0]) == {"RED", "DB", "DG", None}
    retriever.save(tmp_path / "run")
    loaded = xmc.Retriever.load(tmp_path / "run")
    assert loaded.labels.table.equals(retriever.labels.table)
    rows = {row["uid"]: row for row in loaded.labels.table.drop_columns(["xmc_scale", "xmc_examples"]).to_pylist()}
    assert rows["DR"] == {"id": 12, "uid": "DR", "text": "deep dark red", "dark": True, "tags": ["a"], "price": None}
    assert rows["RED"] == {"id": 0, "uid": "RED", "text": "red", "dark": False, "tags": None, "price": 2.5}
    before = loaded.labels
    for change, message in (
        (lambda: loaded.add_labels(["x"], columns={"uid": ["y"]}), "cannot be called 'uid'"),
        (lambda: loaded.add_labels(["x"], columns={"price": ["cheap"]}), "Values of another type"),
        (lambda: loaded.add_labels(["x"], columns={"price": [1, 2]}), "'price' has 2 values for 1 labels"),
        (lambda: loaded.add_labels(["x"], columns={"new": [[1], "a"]}), "'new' are not of one type"),
        (lambda: loaded.add_labels(["x", "x"]), "'x' is given more than once"),
        (lambda: loaded.add_labels([3]), "texts must be strings, but at 0 is 3, of type int"),
        (lambda: loaded.set_columns({"price": [1]}), "needs a column uid beside price"),
        (lambda: loaded.set_columns({"uid": ["RED"], "text": ["x"]}), "cannot be called 'text'"),
        (lambda: loaded.set_columns({"uid": ["MAUVE"], "price": [1]}), "no label 'MAUVE'"),
        (lambda: loaded.set_columns({"uid": ["RED", "RED"], "price": [1, 2]}), "'RED' is given more than once"),
        (lambda: loaded.set_columns({"uid": ["RED"], "price": ["x"]}), "Values of another type"),
        (lambda: loaded.update_labels(["x"], ["MAUVE"]), "no label 'MAUVE'"),
        (lambda: loaded.update_labels(["x", "y"], ["RED"]), "1 uids were given for 2"),
        (lambda: loaded.update_labels(["x", "y"], ["RED", "RED"]), "'RED' is given more than once"),
    ):
        with pytest.raises(InputError, match=message):
            change()
    assert loaded.labels is before
    assert len(loaded.index) == len(before)


def test_columns_of_a_data_set_come_along(tmp_path: Path) -> None:
    colours().save(tmp_path / "data")
    fingerprint = Dataset.load(tmp_path / "data").fingerprint
    file = tmp_path / "data" / "labels.parquet"
    table = pq.read_table(file).append_column("warm", pa.array([name in "red pink orange" for name in COLOURS]))
    pq.write_table(table, file)
    assert seal(tmp_path / "data").changed == ("labels.parquet",)
    convert(open_source(tmp_path / "data"), tmp_path / "converted")
    data = Dataset.load(tmp_path / "converted")
    assert data.fingerprint == fingerprint
    assert data.labels.columns.equals(table.select(["warm"]))
    data.save(tmp_path / "saved")
    assert pq.read_table(tmp_path / "saved" / "labels.parquet").equals(table)
    xmc.train(data, tiny_config(epochs=1), tmp_path / "run")
    loaded = xmc.Retriever.load(tmp_path / "run")
    assert set(loaded.predict(["red"], k=4, where="warm")[0][0]) == {"RED", "PINK", "ORANGE", None}
    unlisted(tmp_path / "data")
    for name in ("id", "xmc_scale", "xmc_examples"):
        pq.write_table(table.append_column(name, pa.array(range(12))), file)
        with pytest.raises(DataError, match=f"a column called {name}, which a run has of its own"):
            _ = Dataset.load(tmp_path / "data").labels
