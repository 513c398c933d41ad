"""Changes in any order, by hypothesis, against a dictionary and numpy; and changes while other threads search."""

from __future__ import annotations

import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_vectors
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from xmc.indexes import versions
from xmc.indexes.factory import build_index, load_index

DIMENSION = 8
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred labels go through everything that a million do."""
    monkeypatch.setattr(versions, "TAIL", 24)
    monkeypatch.setattr(versions, "SCANNED", 10)
    monkeypatch.setattr(versions, "OVER_FETCHED", 6)


vectors = partial(random_vectors.vectors, dimension=DIMENSION)


class Changes(RuleBasedStateMachine):
    """The index beside a dictionary from id to embedding, in the order in which labels came."""

    design, named, exact = "exact", False, True

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.truth: dict[int | str, Any] = {}
        self.next = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    def _new_ids(self, count: int) -> list[Any]:
        self.next += count
        numbers = range(self.next - count, self.next)
        return [f"label {number}" for number in numbers] if self.named else [3 * number - 50 for number in numbers]

    def _some(self, count: int, seed: int) -> list[Any]:
        ids = list(self.truth)
        picked = np.random.default_rng(seed).permutation(len(ids))[:count]
        return [ids[place] for place in picked]

    @initialize(count=st.integers(0, 200), seed=SEEDS)
    def build(self, count: int, seed: int) -> None:
        self.index = build_index(self.design, DIMENSION)
        if count >= 100:
            ids, rows = self._new_ids(count), vectors(count, seed)
            self.index.build(rows, ids)
            self.truth = dict(zip(ids, rows, strict=True))

    @rule(count=st.integers(1, 60), seed=SEEDS)
    def add(self, count: int, seed: int) -> None:
        ids, rows = self._new_ids(count), vectors(count, seed)
        self.index.add(rows, ids)
        self.truth.update(zip(ids, rows, strict=True))

    @precondition(lambda self: self.truth)
    @rule(count=st.integers(1, 80), seed=SEEDS)
    def remove(self, count: int, seed: int) -> None:
        gone = self._some(count, seed)
        self.index.remove(gone)
        for label in gone:
            del self.truth[label]

    @precondition(lambda self: self.truth)
    @rule(count=st.integers(1, 10), seed=SEEDS)
    def take_back(self, count: int, seed: int) -> None:
        """Removed and added again with another embedding, under the same id."""
        ids, rows = self._some(count, seed), vectors(count, seed)
        self.index.remove(ids)
        self.index.add(rows[: len(ids)], ids)
        for label, row in zip(ids, rows, strict=False):
            del self.truth[label]
            self.truth[label] = row

    @precondition(lambda self: self.truth)
    @rule(count=st.integers(1, 30), seed=SEEDS)
    def update(self, count: int, seed: int) -> None:
        ids, rows = self._some(count, seed), vectors(count, seed)
        self.index.update(rows[: len(ids)], ids)
        for label, row in zip(ids, rows, strict=False):
            del self.truth[label]
            self.truth[label] = row

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule()
    def save_and_load(self) -> None:
        self.index.save(Path(self.folder.name) / "index")
        self.index = load_index(Path(self.folder.name) / "index")

    @rule(
        k=st.integers(1, 30),
        seed=SEEDS,
        include=st.sampled_from(["", "set", "mask", "each"]),
        exclude=st.sampled_from(["", "set", "mask", "each"]),
        share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
        rescore=st.sampled_from([None, 0, 3]),
    )
    def search(self, k: int, seed: int, include: str, exclude: str, share: float, rescore: int | None) -> None:
        queries, ids = vectors(3, seed), list(self.truth)
        choose = np.random.default_rng(seed)
        allowed = np.ones((3, len(ids)), bool)
        filters: dict[str, Any] = {}
        for name, how in (("include", include), ("exclude", exclude)):
            chosen = choose.random((3, len(ids))) < share
            if how != "each":
                chosen[:] = chosen[:1]
            if how == "mask":
                filters[name] = chosen[0]
            elif how == "set":
                filters[name] = {ids[place] for place in np.flatnonzero(chosen[0])} | {"nobody" if self.named else 0}
            elif how == "each":
                filters[name] = [[ids[place] for place in np.flatnonzero(row)] for row in chosen]
            if how:
                allowed &= chosen if name == "include" else ~chosen
        found, scores = self.index.search(queries, k, rescore=rescore, **filters)
        assert found.shape == scores.shape == (3, min(k, len(ids)))
        labels = np.array([self.truth[label] for label in ids]).reshape(-1, DIMENSION)
        place = {label: number for number, label in enumerate(ids)}
        for query in range(3):
            truth = np.where(allowed[query], labels @ queries[query], -np.inf)
            count = min(k, int(allowed[query].sum()))
            got = found[query].tolist()
            assert got[count:] == ["" if self.named else -1] * (len(got) - count)
            assert (scores[query, count:] == -np.inf).all()
            rows = [place[label] for label in got[:count]]
            assert len(set(rows)) == count
            assert allowed[query, rows].all()
            assert (np.diff(scores[query, :count]) <= 1e-5).all()
            if self.exact or rescore:
                np.testing.assert_allclose(scores[query, :count], truth[rows], rtol=1e-4, atol=1e-4)
            if self.exact:
                np.testing.assert_allclose(scores[query, :count], np.sort(truth)[::-1][:count], rtol=1e-4, atol=1e-4)

    @invariant()
    def holds_what_it_was_given(self) -> None:
        if not hasattr(self, "index"):
            return
        assert len(self.index) == len(self.truth)
        assert self.index.ids.tolist() == list(self.truth)
        expected = np.array(list(self.truth.values()), np.float32).reshape(-1, DIMENSION)
        np.testing.assert_array_equal(self.index.embeddings, expected)


@pytest.mark.parametrize("named", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("design", ["exact", "Flat", "HNSW8", "IVF8,Flat", "IVF8,PQ4x4fs,Refine(SQ8)", "SQ8", "PQ4x4"])
def test_any_order_of_changes(design: str, named: bool) -> None:
    machine = type("Machine", (Changes,), {"design": design, "named": named, "exact": design in ("exact", "Flat")})
    machine.TestCase.settings = settings(
        max_examples=12,
        stateful_step_count=20,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    machine.TestCase().runTest()


@pytest.mark.parametrize("design", ["HNSW8", "IVF2,Flat", "SQ8", "IVF2,Flat,RFlat"])
def test_only_labels_behind_the_engine_are_left(design: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that the engine covers are all removed, or not allowed, while those added since are scanned."""
    monkeypatch.setattr(versions, "TAIL", 1000)
    index, asked = build_index(design, DIMENSION), vectors(3, 2)
    first, later = vectors(10, 0), vectors(100, 1)
    index.build(first, np.arange(10))
    index.add(later, np.arange(10, 110))
    best = 10 + np.argsort(-(asked @ later.T), axis=1)[:, :4]
    assert index.search(asked, 4, exclude=np.arange(10))[0].tolist() == best.tolist()
    index.remove(np.arange(10))
    for rescore in (0, 3):
        assert index.search(asked, 4, rescore=rescore)[0].tolist() == best.tolist()


@pytest.mark.parametrize("design", ["exact", "IVF64,PQ16x4fs,Refine(SQ8)", "HNSW16"])
def test_searches_while_labels_change(design: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each search of four threads is that of a moment: right for the labels that its snapshot holds, and for no others."""
    monkeypatch.setattr(versions, "TAIL", 500)
    start, labels, queries = 4000, spread(12_000, 0), spread(64, 1)
    index = build_index(design, 32)
    index.build(labels[:start], np.arange(start))
    done, failures, recalls = threading.Event(), list[str](), list[float]()

    def search(seed: int) -> None:
        choose = np.random.default_rng(seed)
        try:
            while not done.is_set():
                held, asked = index.snapshot(), queries[choose.integers(0, 64, 4)]
                ids, scores = held.search(asked, 10)
                living, truth = held.ids, asked @ held.embeddings.T
                assert np.isin(ids, living).all()
                best = -np.sort(-truth, axis=1)[:, :10]
                if design == "exact":
                    np.testing.assert_allclose(scores, best, rtol=1e-5, atol=1e-5)
                found = truth[np.arange(4)[:, None], np.searchsorted(living, ids)]
                recalls.append(float((found >= best[:, -1:] - 1e-5).mean()))
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    choose = np.random.default_rng(9)
    for first in range(start, len(labels), 400):
        index.add(labels[first : first + 400], np.arange(first, first + 400))
        index.remove(choose.choice(index.ids, 100, replace=False))
        searched = len(recalls)
        while len(recalls) < searched + 2 and not failures:
            time.sleep(0.001)
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(index) == 10_000
    assert len(recalls) > 20
    assert np.mean(recalls) >= (1 if design == "exact" else 0.9)


def spread(count: int, seed: int) -> Any:
    """Unit vectors around a few hundred centres, as label embeddings lie."""
    choose = np.random.default_rng(seed)
    centres = np.random.default_rng(77).normal(size=(300, 32))
    points = centres[choose.integers(0, 300, count)] + 0.5 * choose.normal(size=(count, 32))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
