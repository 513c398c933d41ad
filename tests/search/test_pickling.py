"""Retrievers are pickled by reference to their run directory; what they answer and hold is pickled by value."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import calibrated_run, colours

import xmc
from xmc.errors import StoreError
from xmc.search.memory.queries import QueryMemory
from xmc.search.memory.stage import RecallQueries
from xmc.search.memory.votes import VotingRule
from xmc.search.run_metrics import RunMetrics

TEXTS = ["red and blue", "pink"]


def copied(thing: object) -> object:
    return pickle.loads(pickle.dumps(thing))


def test_a_retriever_is_pickled_by_reference(run: Path) -> None:
    retriever = xmc.Retriever.load(run, device=["cpu"])
    data = pickle.dumps(retriever)
    assert len(data) < 1000
    first, second = pickle.loads(data), pickle.loads(data)
    assert repr(first) == repr(second) == repr(retriever)
    for found, expected in zip(first.predict(TEXTS), retriever.predict(TEXTS), strict=True):
        np.testing.assert_array_equal(found, expected)
    first.add_labels(["magenta"])
    assert (len(first), len(second), len(retriever)) == (13, 12, 12)
    assert len(copied(second)) == 12  # type: ignore[arg-type]


def test_a_memory_is_pickled_with_its_run(run: Path, tmp_path: Path) -> None:
    retriever = xmc.Retriever.load(run)
    memory = QueryMemory.from_lists(retriever.embed_queries(["a red thing"]), [np.array([3])], ["a red thing"])
    retriever.use_memory(memory, RecallQueries(VotingRule(weight=5.0)))
    retriever.save(tmp_path / "run")
    again = copied(retriever)
    assert isinstance(again, xmc.Retriever)
    assert len(again.memory or ()) == 1
    for found, expected in zip(again.predict(TEXTS), retriever.predict(TEXTS), strict=True):
        np.testing.assert_array_equal(found, expected)
    retriever.remember(["another"], [["RED"]])
    with pytest.raises(StoreError):  # it is not what the directory holds
        copied(retriever)


def test_a_pickled_subclass_stays_one(run: Path) -> None:
    assert type(copied(Named.load(run))) is Named


class Named(xmc.Retriever):
    """A retriever of a user's."""


CHANGES: dict[str, Callable[[xmc.Retriever], object]] = {
    "labels and index": lambda retriever: retriever.add_labels(["magenta"]),
    "labels and index, configuration": lambda retriever: retriever.reindex("int8"),
    "stages": lambda retriever: retriever.use_stages([]),
    "metrics": lambda retriever: setattr(retriever, "metrics", RunMetrics()),
    "calibration": lambda retriever: setattr(retriever, "calibration", None),
    "model": lambda retriever: torch.nn.init.ones_(next(retriever.model.parameters())),
}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated_run(colours(), tmp_path_factory.mktemp("calibrated") / "run", candidates=5)


@pytest.mark.parametrize("changed", CHANGES)
def test_a_changed_retriever_is_to_be_saved_first(calibrated: Path, tmp_path: Path, changed: str) -> None:
    retriever = xmc.Retriever.load(calibrated)
    assert "changed since" not in repr(retriever)
    CHANGES[changed](retriever)
    assert repr(retriever).endswith(f"{calibrated}, changed since>")
    said = f"run directory {calibrated}, from which it differs by now in: {changed}. Save it first"
    with pytest.raises(StoreError, match=re.escape(said)):
        pickle.dumps(retriever)
    retriever.save(tmp_path / "run")
    other = copied(retriever)
    assert isinstance(other, xmc.Retriever)
    assert repr(other) == repr(retriever)
    np.testing.assert_array_equal(other.predict(TEXTS)[1], retriever.predict(TEXTS)[1])


@pytest.mark.parametrize("begin", ["loaded", "saved", "judged"])
def test_labels_of_before_are_given_back(calibrated: Path, tmp_path: Path, begin: str) -> None:
    """What was saved, and what a calibration was compared with, is known without holding an index that was replaced."""
    retriever = xmc.Retriever.load(calibrated)
    if begin == "saved":
        retriever.save(tmp_path / "run")
    if begin == "judged":
        assert retriever.fits_calibration()
    labels, index = weakref.ref(retriever.labels), weakref.ref(retriever.labels.index)
    now = retriever.at_one_version()
    retriever.reindex("int8")
    gc.collect()
    assert labels() is now.labels
    del now
    gc.collect()
    assert labels() is None
    assert index() is None
    assert repr(retriever).endswith("changed since>")
    assert not retriever.fits_calibration()


def test_a_retriever_that_was_never_saved_says_so(run: Path) -> None:
    loaded = xmc.Retriever.load(run)
    for retriever in (loaded.exact(), loaded.cut(8)):
        assert repr(retriever).endswith("; not saved>")
        with pytest.raises(StoreError, match=r"was never saved\. Save it first"):
            pickle.dumps(retriever)


def test_another_run_is_never_taken_for_the_pickled_one(run: Path, calibrated: Path, tmp_path: Path) -> None:
    retriever, other = xmc.Retriever.load(run), xmc.Retriever.load(calibrated)
    retriever.save(tmp_path / "run")
    data = pickle.dumps(retriever)
    pickle.loads(data)
    other.save(tmp_path / "run", overwrite=True)
    with pytest.raises(StoreError, match=r"run holds another run than when the retriever was pickled. Pickle it again"):
        pickle.loads(data)
    with pytest.raises(StoreError, match=r"was removed or written anew since\. Save it first"):
        pickle.dumps(retriever)
    retriever.save(tmp_path / "damaged")
    data, labels = pickle.dumps(retriever), tmp_path / "damaged" / "labels.parquet"
    labels.write_bytes(labels.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match=r"cannot be read here: .*labels.parquet does not match its SHA-256"):
        pickle.loads(data)


def test_a_copy_shares_labels_and_a_deep_copy_does_not(run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    same, other = copy.copy(retriever), copy.deepcopy(retriever)
    assert repr(other) == repr(retriever)
    assert len(pickle.dumps(other)) < 1000
    retriever.remove_labels(["RED"])
    torch.nn.init.zeros_(next(retriever.model.parameters()))
    assert (len(same), len(other)) == (11, 12)
    assert other.predict(["red"], k=1)[0].tolist() == [["RED"]]
    assert repr(copy.deepcopy(retriever)).endswith("; not saved>")


def test_a_function_over_a_retriever_is_pickled_with_it(run: Path) -> None:
    cloudpickle = pytest.importorskip("cloudpickle", reason="cloudpickle comes with joblib; pip install cloudpickle")
    retriever = xmc.Retriever.load(run)
    function = cloudpickle.loads(cloudpickle.dumps(lambda texts: retriever.predict(texts, k=1)[0].tolist()))
    assert function(TEXTS) == retriever.predict(TEXTS, k=1)[0].tolist()


def test_an_answer_is_pickled_with_the_labels_that_it_names(calibrated: Path) -> None:
    retriever = xmc.Retriever.load(calibrated)
    retriever.set_columns({"uid": ["RED"], "even": [True]})
    answer = retriever.answer(TEXTS, 2, probabilities=True)
    plain = retriever.answer(TEXTS, 20, where="even")
    retriever.add_labels([f"red {number}" for number in range(5000)])
    retriever.remove_labels(["RED"])
    for expected in (answer, plain, retriever.answer(TEXTS, 2)):
        data = pickle.dumps(expected)
        assert len(data) < 5000
        found = pickle.loads(data)
        assert found.to_dict() == expected.to_dict()
        assert found.columns(label_texts=True) == expected.columns(label_texts=True)
        assert found.uids.tolist() == expected.uids.tolist()


@pytest.mark.parametrize("design", ["exact", "int8", "HNSW8"])
def test_labels_and_their_index_are_pickled_by_value(run: Path, design: str) -> None:
    retriever = xmc.Retriever.load(run)
    retriever.reindex(design)
    retriever.add_labels(["magenta", "cherry red"])
    retriever.remove_labels(["PINK"])
    labels, index, vectors = retriever.labels, retriever.index, retriever.embed_queries(TEXTS)
    for copier in (copied, copy.deepcopy):
        other_labels, other = copier(labels), copier(index)
        assert isinstance(other_labels, type(labels))
        assert isinstance(other, type(index))
        assert other_labels.table == labels.table
        assert other_labels.known_rows(["magenta"]).tolist() == labels.known_rows(["magenta"]).tolist()
        for found, expected in zip(other.search(vectors, 3), index.search(vectors, 3), strict=True):
            np.testing.assert_array_equal(found, expected)
        other.add(np.eye(1, index.dimension, dtype=np.float32), [99])
        assert (len(other), len(index)) == (14, 13)
