"""What judges a retriever works on one version of its labels, however these change meanwhile."""

from __future__ import annotations

import copy
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import texts_of_split

import xmc
from xmc.data.dataset import Dataset
from xmc.errors import InputError
from xmc.evaluation.check import check, check_texts
from xmc.evaluation.predicted import Predicted
from xmc.search import long_texts
from xmc.search.calibrated import labels_and_index
from xmc.search.memory.queries import QueryMemory
from xmc.search.memory.stage import RecallQueries
from xmc.search.memory.votes import VotingRule
from xmc.search.passages import PassageOptions
from xmc.search.stages import SearchState, Stage

Operation = Callable[[xmc.Retriever, Dataset, Path], Any]


class Changing(Stage):
    """Changes labels in the midst of every search that comes through: what others would do at the worst moment."""

    name = "changing"

    def __init__(self) -> None:
        self.change: Callable[[], None] = lambda: None

    def __call__(self, state: SearchState) -> SearchState:
        self.change()
        return state


def changes(retriever: xmc.Retriever) -> Iterator[Callable[[], None]]:
    """Changes that move rows, take labels away, bring others, and give labels other texts."""
    uids = retriever.labels.uids.to_pylist()
    for number in itertools.count():
        some = uids[20 * number : 20 * number + 20]
        yield lambda some=some: retriever.remove_labels(some)  # type: ignore[misc]
        yield lambda some=some: retriever.add_labels([f"{uid} again" for uid in some], some)  # type: ignore[misc]
        yield lambda some=some: retriever.update_labels(some[::-1], some)  # type: ignore[misc]
        yield lambda number=number: retriever.add_labels([f"new {number}"])  # type: ignore[misc]


def calibrated(retriever: xmc.Retriever, data: Dataset, folder: Path, **options: Any) -> Any:
    """The calibration as it is written."""
    xmc.calibrate(retriever, data, candidates=40, **options).save(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def reranked(retriever: xmc.Retriever, data: Dataset, folder: Path) -> Any:
    found = xmc.fit_reranker(retriever, data, model="logistic")
    return found.before, found.after, found.stage.fingerprint


def predicted(retriever: xmc.Retriever, data: Dataset, folder: Path) -> Any:
    found = Predicted.from_search(retriever, data, data.split("test"), 5)
    return found.uids.to_pylist(), found.places.tolist(), found.labels.tolist(), found.scores.tolist()


def answered(retriever: xmc.Retriever, data: Dataset, folder: Path) -> Any:
    """Texts that are answered some at a time; each part of the answer is of the same labels."""
    answer = retriever.answer(texts_of_split(data)[:6], 5, passages=PassageOptions(tokens=8))
    return answer.uids.tolist(), answer.scores.tolist(), answer.columns(label_texts=True)


OPERATIONS: dict[str, Operation] = {
    "calibrate": calibrated,
    "calibrate with dependency": lambda *given: calibrated(*given, label_dependency=0.5),
    "evaluate": lambda retriever, data, _: xmc.evaluate(retriever, data).values,
    "evaluate exactly": lambda retriever, data, _: xmc.evaluate(retriever, data, exact=True).values,
    "predicted": predicted,
    "check": lambda retriever, data, _: check(retriever, data).to_dict(),
    "check of texts": lambda retriever, data, _: check_texts(retriever, texts_of_split(data)).to_dict(),
    "fit_reranker": reranked,
    "long texts": answered,
    "similar labels": lambda retriever, data, _: [
        found.tolist() for found in retriever.similar_labels(retriever.labels.uids[:5].to_pylist())
    ],
    "probabilities": lambda retriever, data, _: retriever.predict_proba(texts_of_split(data))[1].tolist(),
}


@pytest.fixture(scope="module")
def with_stage(run: Path, data: Dataset) -> tuple[xmc.Retriever, Changing]:
    """A calibrated retriever whose searches go through a stage that can change its labels."""
    retriever, stage = xmc.Retriever.load(run), Changing()
    retriever.use_stages([stage])
    xmc.calibrate(retriever, data, candidates=40)
    return retriever, stage


@pytest.fixture
def changing(with_stage: tuple[xmc.Retriever, Changing]) -> Iterator[tuple[xmc.Retriever, Changing]]:
    """A copy that a test may change."""
    retriever, stage = with_stage
    yield retriever.at_one_version(), stage
    stage.change = lambda: None


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_result_is_that_of_the_labels_of_the_beginning(
    changing: tuple[xmc.Retriever, Changing],
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    retriever, stage = changing
    monkeypatch.setattr(long_texts, "CHARACTERS", 20)
    expected = OPERATIONS[name](copy.deepcopy(retriever), data, tmp_path / "expected")
    before, waiting = retriever.labels.number, changes(retriever)
    stage.change = lambda: next(waiting)()
    assert OPERATIONS[name](retriever, data, tmp_path / "found") == expected
    assert retriever.labels.number > before


def test_a_calibration_is_for_the_labels_that_it_saw(
    changing: tuple[xmc.Retriever, Changing], data: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    retriever, stage = changing
    seen, waiting = retriever.at_one_version(), changes(retriever)
    stage.change = lambda: next(waiting)()
    calibration = xmc.calibrate(retriever, data, candidates=40)
    stage.change = lambda: None
    assert retriever.calibration is calibration
    assert calibration.source.labels == labels_and_index(seen.labels) != labels_and_index(retriever.labels)
    with caplog.at_level(logging.WARNING):
        assert not retriever.fits_calibration()
    assert "labels or index were changed after calibration" in caplog.text
    seen.calibration = calibration
    assert seen.fits_calibration()


def test_a_reranker_is_not_given_to_other_stages_than_it_was_fitted_with(
    changing: tuple[xmc.Retriever, Changing], data: Dataset
) -> None:
    retriever, stage = changing
    stage.change = lambda: retriever.use_stages([])
    with pytest.raises(InputError, match="stages of the retriever were exchanged while the re-ranker was fitted"):
        xmc.fit_reranker(retriever, data, model="logistic")
    assert retriever.stages == ()


def test_a_memory_is_fitted_while_labels_change(run: Path, data: Dataset) -> None:
    """Labels that the data set lacks come and go, so many that rows are numbered anew again and again."""
    retriever = xmc.Retriever.load(run)
    expected = xmc.fit_memory(retriever.at_one_version(), data, "own").memory
    more = [f"more {number}" for number in range(4_000)]
    stop, failures = threading.Event(), []

    def change() -> None:
        try:
            while not stop.is_set():
                retriever.add_labels(more, score="raw")
                retriever.remove_labels(more)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        found = xmc.fit_memory(retriever, data, "own").memory
    finally:
        stop.set()
        thread.join()
    assert not failures
    assert found is not None
    assert expected is not None
    assert found.fingerprint == expected.fingerprint
    assert retriever.memory is found


def test_searches_see_a_memory_with_its_own_stage(run: Path, data: Dataset) -> None:
    """One thread takes the memory away and brings it back, while others search."""
    retriever, texts = xmc.Retriever.load(run), texts_of_split(data)[:4]
    ids = retriever.labels.ids[:4].reshape(4, 1)
    memory = QueryMemory.from_lists(retriever.embed_queries(texts), list(ids), texts)
    plain = retriever.predict(texts, 1)[0].tolist()
    retriever.use_memory(memory, RecallQueries(VotingRule(weight=50.0)))
    voted = retriever.predict(texts, 1)[0].tolist()
    assert voted == [[uid] for uid in retriever.labels.uids[:4].to_pylist()] != plain
    failures: list[Any] = []
    seen: list[list[list[str]]] = []
    stop = threading.Event()

    def search() -> None:
        try:
            while not stop.is_set():
                seen.append(retriever.predict(texts, 1)[0].tolist())
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        while not failures and not (len(seen) > 100 and plain in seen and voted in seen):
            retriever.use_memory(None)
            retriever.use_memory(memory, RecallQueries(VotingRule(weight=50.0)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[:1]
    assert all(found in (plain, voted) for found in seen)


def test_one_version_stays_what_it_is(run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    uids = retriever.labels.uids.to_pylist()
    now = retriever.at_one_version()
    retriever.remove_labels(uids[:2])
    retriever.calibration = None
    retriever.use_stages([Changing()])
    assert len(now) == len(now.index) == len(now.embeddings) == len(uids) == len(retriever) + 2
    assert (
        now.similar_labels(uids[:1], 5)[0].tolist() == xmc.Retriever.load(run).similar_labels(uids[:1], 5)[0].tolist()
    )
    assert now.calibration is not None
    assert now.stages == ()
    now.add_labels(["one more"])
    assert len(retriever) == len(uids) - 2
    assert np.array_equal(now.labels.ids[:-1], np.arange(len(uids)))
