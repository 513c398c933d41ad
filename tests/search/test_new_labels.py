"""Labels that are added and updated by text and by example: what they are searched by, what is kept of it, what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import COLOURS, colours, tiny_config

import xmc
from xmc.arrays import Embeddings
from xmc.data.dataset import Dataset
from xmc.errors import InputError
from xmc.search.calibrated import labels_and_index
from xmc.search.label_vectors import second_moment

TEXTS = [f"item {number} turquoise and {name}" for number, name in enumerate(COLOURS)]


@pytest.fixture
def retriever(run: Path) -> xmc.Retriever:
    return xmc.Retriever.load(run)


CENTRES = np.random.default_rng(0).normal(size=(50, 32))


def vectors(seed: int, count: int) -> Embeddings:
    """Unit vectors around common directions."""
    rng = np.random.default_rng(seed)
    drawn = CENTRES[rng.integers(50, size=count)] + 0.5 * rng.normal(size=(count, 32))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def many(run: Path) -> xmc.Retriever:
    """A thousand labels and half as many stored queries."""
    model, uids = xmc.Retriever.load(run).model, [f"L{number}" for number in range(1000)]
    return xmc.Retriever.from_model(model, uids, uids, tiny_config(), "exact", vectors(1, 1000), None, vectors(2, 500))


def test_labels_by_example_are_found_by_their_queries(retriever: xmc.Retriever) -> None:
    (scaling,) = retriever.add_labels(uids=["TURQUOISE"], examples=[TEXTS[:6]], expected_rate=0.2)
    found, _ = retriever.predict(TEXTS[6:], k=3)
    assert sum("TURQUOISE" in row for row in found.tolist()) >= 5
    assert retriever.texts(["TURQUOISE"]) == [""]
    embeddings = retriever.embed_queries(TEXTS[:6])
    wanted = np.linalg.solve(second_moment(retriever.tuning_queries), embeddings.astype(np.float64).mean(axis=0))
    wanted *= scaling.scale / np.linalg.norm(wanted)
    np.testing.assert_allclose(retriever.labels.vectors_of(["TURQUOISE"])[0], wanted, atol=1e-5)
    assert scaling.rate == pytest.approx(0.2, abs=1 / len(retriever.tuning_queries))


def test_forms_of_examples_agree(run: Path) -> None:
    """Texts, Query objects, embeddings, lists of embeddings."""
    vectors = []
    for kind in range(4):
        retriever = xmc.Retriever.load(run)
        embeddings = retriever.embed_queries(TEXTS[:3])
        examples: Any = [TEXTS[:3], [xmc.Query({text: 2.0}) for text in TEXTS[:3]], embeddings, list(embeddings)][kind]
        retriever.add_labels(["turquoise", "other"], examples=[examples, None])
        vectors.append(retriever.embeddings[-2:])
    for other in vectors[1:]:
        np.testing.assert_allclose(other, vectors[0], atol=1e-5)


def test_new_labels_hardly_change_what_is_found(many: xmc.Retriever) -> None:
    """Labels that score above all others, scaled, enter the best ten as often as the trained ones."""
    queries = many.tuning_queries
    before, _ = many.predict(queries, 10)
    many.add_labels([f"new {number}" for number in range(100)])
    rng = np.random.default_rng(1)
    examples = [queries[rng.choice(500, 5)] for _ in range(100)]
    (scaling,) = many.add_labels(uids=[f"by example {number}" for number in range(100)], examples=examples)
    assert scaling.rate == pytest.approx(2 * 10 / 1000, rel=0.01)
    after, _ = many.predict(queries, 10)
    kept = np.mean([np.isin(row, old).mean() for row, old in zip(after.tolist(), before.tolist(), strict=True)])
    assert kept > 0.7  # 100 labels at the rate of the others, and 100 at twice that: 1 and 2 of 10 places
    raw = many.exact()
    raw.add_labels([f"raw {number}" for number in range(100)], score="raw")
    assert set(raw.labels.scales[-100:].tolist()) == {1.0}


def test_what_is_kept_of_labels(run: Path, tmp_path: Path) -> None:
    """Scale and number of examples, through saving, changes, removal, compaction and cutting."""
    retriever = xmc.Retriever.load(run)
    assert retriever.labels.trained is None
    retriever.add_labels(["turquoise", None], ["A", "B"], {"price": [1, 2]}, examples=[None, TEXTS[:4]])
    retriever.update_labels(uids=["RED"], examples=[["a red item", "red"]], score="raw")
    retriever.save(tmp_path / "run")
    loaded = xmc.Retriever.load(tmp_path / "run")
    assert loaded.labels.table.equals(retriever.labels.table)
    np.testing.assert_array_equal(loaded.embeddings, retriever.embeddings)
    rows = {row["uid"]: row for row in loaded.labels.table.to_pylist()}
    assert [rows[uid]["xmc_examples"] for uid in ("BLUE", "A", "B", "RED")] == [None, 0, 4, 2]
    assert rows["BLUE"]["xmc_scale"] is None
    assert rows["RED"]["xmc_scale"] == 1
    assert rows["RED"]["text"] == "red"
    norms = np.linalg.norm(loaded.embeddings, axis=1)
    np.testing.assert_allclose(norms, loaded.labels.scales, rtol=1e-5)
    loaded.remove_labels(["BLUE"])
    assert loaded.labels.alive is not None
    np.testing.assert_allclose(np.linalg.norm(loaded.embeddings, axis=1), loaded.labels.scales, rtol=1e-5)
    loaded.remove_labels(["GREEN", "A", "PINK"])  # forgets removed labels
    assert loaded.labels.alive is None
    np.testing.assert_allclose(np.linalg.norm(loaded.embeddings, axis=1), loaded.labels.scales, rtol=1e-5)
    cut = loaded.cut(16)
    np.testing.assert_allclose(np.linalg.norm(cut.embeddings, axis=1), cut.labels.scales, rtol=1e-5)
    assert loaded.predict(["red"], k=5, where="xmc_examples > 0 and price == 2")[0].tolist()[0][0] == "B"
    loaded.update_labels(["turquoise"], ["B"])
    assert loaded.labels.table.to_pylist()[-1]["xmc_examples"] == 0


def test_scales_have_a_limit(retriever: xmc.Retriever) -> None:
    """A label of a subject that stored queries lack scores no higher than they do; one that is expected may."""
    _, scores = retriever.predict(retriever.tuning_queries, 1)
    best = scores[scores > 0].mean()
    (by_text,) = retriever.add_labels(["an unheard-of thing"])
    assert by_text.scale <= 1
    (by_example,) = retriever.add_labels(uids=["THING"], examples=[TEXTS[:2]])
    own = (retriever.embed_queries(TEXTS[:2]) @ retriever.embeddings[-1]).mean()
    assert own <= best * (1 + 1e-5)
    (expected,) = retriever.add_labels(uids=["OTHER"], examples=[TEXTS[:2]], expected_rate=0.9)
    assert expected.scale > by_example.scale


def test_calibrations_see_other_examples(retriever: xmc.Retriever) -> None:
    """The last label keeps its place and text; its vector is another one."""
    seen = []
    for examples in (TEXTS[:3], TEXTS[:3], TEXTS[3:6]):
        retriever.update_labels(uids=["CYAN"], examples=[examples], score="raw")
        seen.append(labels_and_index(retriever.labels))
    assert seen[0] == seen[1] != seen[2]


def test_negative_examples_push_a_label_away(retriever: xmc.Retriever) -> None:
    examples, against = [TEXTS[:3]], ["item 5 turquoise and brown", "brown"]
    retriever.add_labels(["turquoise"], examples=examples, score="raw")
    retriever.add_labels(["turquoise"], ["AGAINST"], examples=examples, negatives=[against], score="raw")
    plain, pushed = retriever.embed_queries(against) @ retriever.embeddings[-2:].T @ np.eye(2)
    assert plain[1] < plain[0]
    assert pushed[1] < pushed[0]


def test_bad_input_changes_nothing(retriever: xmc.Retriever) -> None:
    add, update, before = retriever.add_labels, retriever.update_labels, retriever.labels
    nan = np.full((2, 32), np.nan, np.float32)
    cases: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: add(), "texts must be a list of label texts, or None for labels with uids"),
        (lambda: add(uids=["A"]), "texts must be a list of label texts, or None"),
        (lambda: add(uids=["A", "B"], examples=[["x"]]), "examples has 1 lists for 2 labels"),
        (lambda: add(uids=["A"], examples=[[]]), "label 'A' has neither a text nor an example"),
        (lambda: add(["a", ""], ["A", "B"], examples=[["x"], None]), "label 'B' has neither"),
        (lambda: add([None], examples=[["x"]]), "label at 0 has neither a text nor a uid"),
        (lambda: add(uids=["A"], examples=["x"]), "examples of the label 'A' must be a list of queries"),
        (lambda: add(uids=["A"], examples=[[3]]), "examples of the label 'A' cannot be used: A query must be a text"),
        (lambda: add(uids=["A"], examples=[[""]]), "'A' cannot be used: The text of query 0 is empty"),
        (lambda: add(uids=["A"], examples=[np.zeros((2, 7))]), r"shape \(n, 32\), but have \(2, 7\)"),
        (lambda: add(uids=["A"], examples=[nan]), "NaN or infinite in 2 rows"),
        (lambda: add(uids=["A"], examples=[np.zeros((2, 32))]), "'A' add up to nothing"),
        (lambda: add(["a"], negatives=[["x"], ["y"]]), "negatives has 2 lists for 1 labels"),
        (lambda: add(["a"], score="best"), 'must be "rate" or "raw", but is \'best\''),  # type: ignore[arg-type]
        (lambda: add(["a"], expected_rate=0), "above 0 and at most 1, but is 0"),
        (lambda: add(["a"], expected_rate=0.1, score="raw"), 'what score="rate" aims at'),
        (lambda: add(["a"], columns={"xmc_scale": [2.0]}), "cannot be called 'xmc_scale'"),
        (lambda: retriever.set_columns({"uid": ["RED"], "xmc_examples": [3]}), "cannot be called 'xmc_examples'"),
        (lambda: update(["a"]), "needs the uids"),
        (lambda: update(uids=["MAUVE"], examples=[["x"]]), "no label 'MAUVE'"),
        (lambda: update(uids=["RED"], examples=[["x"], ["y"]]), "examples has 2 lists for 1 labels"),
    )
    for change, message in cases:
        with pytest.raises(InputError, match=message):
            change()
    assert retriever.labels is before


def test_a_run_without_stored_queries(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = xmc.Retriever.load(run)
    bare = xmc.Retriever.from_model(loaded.model, ["RED"], ["red"], loaded.config)
    with caplog.at_level(logging.WARNING, "xmc.search"):
        (scaling,) = bare.add_labels(["turquoise"])
    assert "keeps no queries to scale new labels by" in caplog.text
    assert scaling.scale == 1
    for options in ({"examples": [["x"]]}, {"expected_rate": 0.1}):
        with pytest.raises(InputError, match="The run keeps no queries, and "):
            bare.add_labels(["mauve"], **options)


def test_labels_without_training_queries_are_scaled_down(run: Path) -> None:
    loaded = xmc.Retriever.load(run)
    trained, uids = np.arange(300) > 20, [f"L{number}" for number in range(300)]
    embeddings = np.where(trained[:, None], 1, 1.5).astype(np.float32) * vectors(3, 300)
    arguments = (loaded.model, uids, uids, loaded.config, "exact", embeddings, None, vectors(2, 500))
    scaled = xmc.Retriever.from_model(*arguments, trained)
    assert scaled.labels.trained is not None
    assert scaled.labels.trained.tolist() == trained.tolist()
    assert len(set(scaled.labels.scales[:21].tolist())) == 1
    assert scaled.labels.scales[0] < 0.8
    assert (scaled.labels.scales[21:] == 1).all()
    with pytest.raises(InputError, match="trained must say True or False of each of 300 labels"):
        xmc.Retriever.from_model(*arguments, trained[:5])
    rare = (*arguments[:5], embeddings * np.where(trained[:, None], 1, 0.1).astype(np.float32), *arguments[6:])
    assert xmc.Retriever.from_model(*rare, trained).labels.trained is None


def test_training_says_which_labels_have_queries(tmp_path: Path) -> None:
    """With the batch's positives as the only negatives, a label without queries was never seen."""
    data, empty = colours(), 2
    split = data.split("train")
    lists = [
        [row for row in rows.tolist() if row != empty]
        for rows in np.split(split.positives.indices, split.positives.indptr[1:-1])
    ]
    data = Dataset.from_lists("colours", list(COLOURS), {"train": (split.texts.to_pylist(), lists)})
    xmc.train(data, tiny_config(negatives=["in-batch"]), tmp_path / "run")
    trained = xmc.Retriever.load(tmp_path / "run").labels.trained
    assert trained is None or trained.tolist() == [row != empty for row in range(12)]
