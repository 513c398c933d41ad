"""The library call: predict, change labels, save, load, evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from worlds import colours, tiny_config

import xmc
from xmc.batch import predict_parquet
from xmc.data.dataset import Dataset
from xmc.errors import DataError, InputError, StoreError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("retriever") / "run"
    xmc.train(colours(), tiny_config(epochs=8), directory)
    return directory


def test_predict_shapes_and_order(run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    labels, scores = retriever.predict(["red and blue", "pink"], k=3)
    assert labels.shape == scores.shape == (2, 3)
    assert scores.dtype == np.float32
    assert set(labels[0][:2]) == {"RED", "BLUE"}
    assert labels[1][0] == "PINK"
    assert (np.diff(scores, axis=1) <= 0).all()
    embeddings = retriever.embed_queries(["red and blue", "pink"])
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    again = retriever.predict(embeddings, k=3)
    assert again[0].tolist() == labels.tolist()
    assert retriever.predict(np.array(["pink"]), k=1)[0].tolist() == [["PINK"]]
    assert retriever.predict(np.array(["pink"], object), k=1)[0].tolist() == [["PINK"]]


def test_edges(run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    labels, scores = retriever.predict([], k=5)
    assert labels.shape == scores.shape == (0, 5)
    assert retriever.predict(["red"], k=500)[0].shape == (1, 12)
    assert retriever.predict(["red"], k=0)[0].shape == (1, 0)
    labels, scores = retriever.predict([""], k=2)
    assert np.isfinite(scores).all()
    with pytest.raises(InputError, match="put a single text into a list"):
        retriever.predict("red")
    with pytest.raises(InputError, match=r"shape \(n, 32\)"):
        retriever.predict(np.zeros((2, 7), np.float32))
    with pytest.raises(InputError, match="k must be at least 0"):
        retriever.predict(["red"], k=-2)


def test_labels_come_and_go(run: Path, tmp_path: Path) -> None:
    retriever = xmc.Retriever.load(run)
    retriever.add_labels(["crimson velvet"], uids=["CRIMSON"])
    retriever.add_labels(["ultramarine"])
    assert retriever.predict(["crimson velvet"], k=1)[0].tolist() == [["CRIMSON"]]
    assert retriever.predict(["ultramarine"], k=1)[0].tolist() == [["ultramarine"]]
    retriever.remove_labels(["RED", "CRIMSON"])
    assert len(retriever) == 12
    assert not {"RED", "CRIMSON"} & set(retriever.predict(["red crimson velvet"], k=12)[0].ravel())
    retriever.save(tmp_path / "changed")
    loaded = xmc.Retriever.load(tmp_path / "changed")
    queries = ["red", "ultramarine", "blue and green"]
    for one, two in zip(retriever.predict(queries, k=12), loaded.predict(queries, k=12), strict=True):
        assert one.tolist() == two.tolist()
    assert loaded.search(["ultramarine"], k=1)[0].tolist() == [[13]]
    loaded.remove_labels(["ultramarine"])
    loaded.add_labels(["ultramarine"])
    assert loaded.search(["ultramarine"], k=1)[0].tolist() == [[14]]  # an id never comes to mean another label
    loaded.add_labels(["red"], uids=["RED"])
    assert loaded.predict(["red"], k=1)[0].tolist() == [["RED"]]
    assert loaded.texts(["RED", "ultramarine"]) == ["red", "ultramarine"]
    with pytest.raises(InputError, match="'RED' is already there"):
        loaded.add_labels(["scarlet"], uids=["RED"])
    with pytest.raises(InputError, match="no label 'MAUVE'"):
        loaded.remove_labels(["MAUVE"])
    with pytest.raises(InputError, match="1 uids were given for 2"):
        loaded.add_labels(["a", "b"], uids=["x"])
    with pytest.raises(StoreError, match="already holds a run"):
        loaded.save(tmp_path / "changed")


def test_evaluate_counts_missing_and_unknown_labels(run: Path) -> None:
    data, retriever = colours(), xmc.Retriever.load(run)
    full = xmc.evaluate(retriever, data)
    assert full.queries == 100
    assert full.values["P@1"] >= 95
    retriever.add_labels([f"item {i}" for i in range(100)])  # unknown to the data set, and close to every query
    noisy = xmc.evaluate(retriever, data)
    assert noisy.values["R@10"] < full.values["R@10"] + 1e-9
    retriever.remove_labels([f"item {i}" for i in range(100)] + ["RED"])
    without_red = xmc.evaluate(retriever, data).values["R@10"]
    assert without_red < full.values["R@10"] - 2
    other = Dataset.from_lists("other", ["x"], {"test": (["q"], [[0]])}, label_uids=["X"])
    with pytest.raises(DataError, match="share no label uid"):
        xmc.evaluate(retriever, other)


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "metrics.json",
        "model.safetensors",
        "labels.parquet",
        "encoder/encoder.safetensors",
        "index/ids.arrow",
    ],
)
def test_a_truncated_or_edited_file_is_named(run: Path, tmp_path: Path, name: str) -> None:
    retriever = xmc.Retriever.load(run)
    retriever.save(tmp_path / "run")
    file = tmp_path / "run" / name
    content = file.read_bytes()
    for damaged in (content[:-1], bytes([content[0] ^ 1]) + content[1:]):
        file.write_bytes(damaged)
        with pytest.raises(StoreError, match=file.name):
            xmc.Retriever.load(tmp_path / "run")


def test_an_index_of_another_run_is_refused(run: Path, tmp_path: Path) -> None:
    retriever, other = xmc.Retriever.load(run), xmc.Retriever.load(run)
    other.remove_labels(["RED"])
    retriever.index = other.index
    retriever.save(tmp_path / "mixed")
    with pytest.raises(StoreError, match="does not belong to it: 11 labels"):
        xmc.Retriever.load(tmp_path / "mixed")


def test_no_pickles_in_a_run(run: Path) -> None:
    endings = {file.suffix for file in run.rglob("*") if file.is_file()}
    assert endings <= {".json", ".jsonl", ".yaml", ".safetensors", ".parquet", ".arrow"}
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["properties"]["labels"] == 12
    assert manifest["libraries"]["torch"]


def test_batch_prediction_equals_predict(run: Path, tmp_path: Path) -> None:
    retriever = xmc.Retriever.load(run)
    texts = ["red", "blue and pink", None, "", "green"] * 50
    table = pa.table({"uid": [f"q{i}" for i in range(len(texts))], "text": texts, "more": [1] * len(texts)})
    pq.write_table(table, tmp_path / "in.parquet")
    assert predict_parquet(retriever, tmp_path / "in.parquet", tmp_path / "out.parquet", k=3, batch_size=7) == 250
    out = pq.read_table(tmp_path / "out.parquet")
    assert out["uid"].to_pylist() == table["uid"].to_pylist()
    labels, scores = retriever.predict([text or "" for text in texts], k=3)
    assert out["labels"].to_pylist() == labels.tolist()
    np.testing.assert_allclose(out["scores"].to_pylist(), scores, atol=1e-6)
    with pytest.raises(DataError, match=r"no column 'text', only uid"):
        pq.write_table(table.select(["uid"]), tmp_path / "bad.parquet")
        predict_parquet(retriever, tmp_path / "bad.parquet", tmp_path / "out2.parquet")
    (tmp_path / "broken.parquet").write_bytes((tmp_path / "in.parquet").read_bytes()[:100])
    with pytest.raises(DataError, match=r"broken.parquet cannot be read"):
        predict_parquet(retriever, tmp_path / "broken.parquet", tmp_path / "out2.parquet")
    assert not (tmp_path / "out2.parquet").exists()
