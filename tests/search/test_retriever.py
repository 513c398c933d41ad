"""The library call: predict, change labels, save, load, evaluate."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brute_force import expected
from worlds import COLOURS, colours

import xmc
from xmc.data.dataset import Dataset
from xmc.errors import DataError, InputError, StoreError
from xmc.indexes.factory import build_index
from xmc.search.changes import Compacted
from xmc.search.run_metrics import RunMetrics


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
    labels, scores = retriever.predict([""], k=2, allow_empty=True)
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


def _with_index_of(run: Path, other: Path) -> None:
    """Put another run's index into a run, so that every checksum fits."""
    shutil.rmtree(run / "index")
    shutil.copytree(other / "index", run / "index")
    manifest = json.loads((run / "manifest.json").read_text())
    entries = json.loads((other / "manifest.json").read_text())["files"]
    manifest["files"].update({name: entries[name] for name in entries if name.startswith("index/")})
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_an_index_of_another_run_is_refused(run: Path, tmp_path: Path) -> None:
    retriever, other = xmc.Retriever.load(run), xmc.Retriever.load(run)
    other.remove_labels(["RED"])
    with pytest.raises(InputError, match="it holds 11 of dimension 32, where there are 12 of dimension 32"):
        retriever.use_index(other.index)
    retriever.save(tmp_path / "run")
    other.save(tmp_path / "other")
    _with_index_of(tmp_path / "run", tmp_path / "other")
    with pytest.raises(StoreError, match=r"parts of several runs: .* it holds 11 of dimension 32"):
        xmc.Retriever.load(tmp_path / "run")


def test_an_index_of_another_model_is_refused(run: Path, tmp_path: Path) -> None:
    retriever = xmc.Retriever.load(run)
    retriever.save(tmp_path / "run")
    with torch.no_grad():
        retriever.model.log_temperature += 1
    retriever.save(tmp_path / "other")
    sources = []
    for name in ("run", "other"):
        sources.append(json.loads((tmp_path / name / "index" / "manifest.json").read_text())["properties"]["source"])
        assert sources[-1].startswith("model ")
    _with_index_of(tmp_path / "run", tmp_path / "other")
    with pytest.raises(StoreError, match=f"built from {sources[1]} .* and {sources[0]} is asked for"):
        xmc.Retriever.load(tmp_path / "run")


def test_use_index_and_exact(run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    retriever.add_labels([f"{name} {number}" for name in COLOURS for number in range(30)])
    retriever.remove_labels(["RED"])
    expected = retriever.predict(["red", "dark green"], k=20)
    index = build_index("SQ4", 32)
    index.build(retriever.embeddings, retriever.labels.ids)
    retriever.use_index(index)
    assert retriever.index.design is index.design
    assert retriever.config.index == "SQ4"
    found = retriever.predict(["red", "dark green"], k=20)
    assert not np.allclose(found[1], expected[1], rtol=1e-5)
    exact = retriever.exact()
    again = exact.predict(["red", "dark green"], k=20)
    assert again[0].tolist() == expected[0].tolist()
    np.testing.assert_allclose(again[1], expected[1], rtol=1e-5)
    assert exact.config.index == "exact"
    exact.remove_labels(["BLUE"])
    assert len(retriever) == len(exact) + 1
    assert xmc.evaluate(retriever, colours(), exact=True).values == xmc.evaluate(exact_of(retriever), colours()).values


def exact_of(retriever: xmc.Retriever) -> xmc.Retriever:
    """The same labels in a new exact index, made without the retriever's help."""
    index = build_index("exact", 32)
    index.build(retriever.embeddings, retriever.labels.ids)
    labels = Compacted()(retriever.labels).with_index(index.snapshot().held)
    return xmc.Retriever(retriever.model, labels, retriever.config, RunMetrics(), retriever.tuning_queries)


def test_no_pickles_in_a_run(run: Path) -> None:
    endings = {file.suffix for file in run.rglob("*") if file.is_file()}
    assert endings <= {".json", ".jsonl", ".yaml", ".safetensors", ".parquet", ".arrow"}
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["properties"]["labels"] == 12
    assert manifest["libraries"]["torch"]


@pytest.mark.parametrize("seed", range(3))
def test_changes_agree_with_a_dictionary(run: Path, tmp_path: Path, seed: int) -> None:
    """Labels are added, removed, updated, given columns, saved and loaded, beside a dictionary in the same order."""
    rng = np.random.default_rng(seed)
    retriever = xmc.Retriever.load(run)
    truth: dict[str, tuple[int, str, Any]] = {name.upper(): (row, name, None) for row, name in enumerate(COLOURS)}
    vectors = dict(zip(truth, retriever.embeddings, strict=True))
    following, spare = 12, ["MAUVE", "UMBER"]

    def some(most: int) -> list[str]:
        return [list(truth)[place] for place in rng.permutation(len(truth))[: rng.integers(1, most + 1)]]

    def text() -> str:
        return " ".join(rng.choice(COLOURS, size=3)) + f" {rng.integers(1000)}"

    for step in range(70):
        action = rng.choice(["add", "remove", "update", "columns", "save"], p=[0.4, 0.2, 0.2, 0.15, 0.05])
        if action == "add":
            uids = [f"L{step}-{number}" for number in range(rng.integers(1, 8))] + spare[: rng.integers(0, 2)]
            spare = [uid for uid in spare if uid not in uids]
            texts, prices = [text() for _ in uids], [int(price) for price in rng.integers(0, 9, len(uids))]
            retriever.add_labels(texts, uids, columns={"price": prices})
            for uid, words, price in zip(uids, texts, prices, strict=True):
                truth[uid], following = (following, words, price), following + 1
                vectors[uid] = retriever.model.embed_labels([words])[0]
        elif action == "remove" and len(truth) > 10:
            gone = some(6)
            retriever.remove_labels(gone)
            spare += gone
            for uid in gone:
                del truth[uid]
        elif action == "update":
            uids = some(5)
            texts = [text() for _ in uids]
            retriever.update_labels(texts, uids)
            for uid, words in zip(uids, texts, strict=True):
                number, _, price = truth.pop(uid)
                truth[uid], vectors[uid] = (number, words, price), retriever.model.embed_labels([words])[0]
        elif action == "columns":
            uids = some(5)
            retriever.set_columns({"uid": uids, "price": [step] * len(uids)})
            truth.update({uid: (*truth[uid][:2], step) for uid in uids})
        elif action == "save":
            retriever.save(tmp_path / "run", overwrite=True)
            retriever = xmc.Retriever.load(tmp_path / "run")
        table = retriever.labels.table.to_pylist()
        assert [(row["uid"], row["id"], row["text"], row.get("price")) for row in table] == [
            (uid, *values) for uid, values in truth.items()
        ]
        scaled = retriever.labels.scales[:, None] * [vectors[uid] for uid in truth]
        np.testing.assert_allclose(retriever.embeddings, scaled, atol=1e-6)
        assert retriever.labels.next_id == following
        asked = some(3)
        assert retriever.texts(asked) == [truth[uid][1] for uid in asked]
        found, scores = retriever.predict(["red and blue"], k=5, exclude=asked)
        best = expected(retriever, ["red and blue"], 5, np.array([[uid not in asked for uid in truth]]))
        np.testing.assert_allclose(scores, best[1], rtol=1e-5)
        assert found.tolist() == best[0]


def test_threads_see_all_of_a_change_or_nothing(run: Path) -> None:
    """Pairs of labels come and go together, and swap their texts; no prediction shows one without the other."""
    retriever = xmc.Retriever.load(run)
    retriever.set_columns({"uid": ["RED", "BLUE"], "shade": ["old", "old"]})
    failures: list[str] = []
    predictions = [0] * 4
    stop = threading.Event()

    def predict(thread: int) -> None:
        while not stop.is_set():
            try:
                labels, scores = retriever.predict(["magenta one", "magenta two"], k=100)
                for row, values in zip(labels, scores, strict=True):
                    found = [uid for uid in row if uid is not None]
                    lone = {uid[1:] for uid in found if uid[0] in "ab"}
                    if any(f"a{pair}" not in found or f"b{pair}" not in found for pair in lone):
                        failures.append(f"half a change: {found}")
                    if len(found) != len(row) or len(set(found)) != len(found) or (np.diff(values) > 0).any():
                        failures.append(f"not a ranking: {found}")
                uids, _ = retriever.predict(["red"], k=40, where="shade == 'new'")
                shades = {uid for uid in uids[0] if uid is not None}
                if len(shades) not in (0, 2):
                    failures.append(f"half a column: {shades}")
            except Exception as error:
                failures.append(repr(error))
            predictions[thread] += 1

    threads = [threading.Thread(target=predict, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for pair in range(30):
            uids = [f"a{pair}", f"b{pair}"]
            retriever.add_labels(["magenta one", "magenta two"], uids)
            retriever.set_columns({"uid": ["RED", "BLUE"], "shade": [["old", "new"][pair % 2]] * 2})
            retriever.update_labels(["magenta two", "magenta one"], uids)
            if pair % 3:
                retriever.remove_labels(uids)
        end = time.monotonic() + 300  # a bound on waiting alone: each thread predicts many times meanwhile
        while min(predictions) == 0 and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[:3]
    assert min(predictions) > 0
    assert len(retriever) == 32
