"""The store of labels: versions do not change, changes make the next one, and the index follows by rows."""

from __future__ import annotations

import threading
import time
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import random_vectors

from xmc.errors import InputError
from xmc.indexes import versions
from xmc.indexes.factory import index_version
from xmc.search.changes import Added, ColumnsSet, Compacted, Removed, Updated
from xmc.search.filters import narrow
from xmc.search.label_columns import values_at
from xmc.search.labels import LabelVersion
from xmc.search.stages import FilterAndCut, SearchRequest, SearchState
from xmc.search.store import LabelStore

DIMENSION = 6
NONE = np.zeros((0, DIMENSION), np.float32)


vectors = partial(random_vectors.vectors, dimension=DIMENSION)


def labels(count: int = 20, design: str = "exact") -> LabelVersion:
    names = [f"l{number}" for number in range(count)]
    held = index_version(design, vectors(count, 0), NONE)
    texts, even = [f"text of {name}" for name in names], [number % 2 == 0 for number in range(count)]
    return LabelVersion.from_lists(names, texts, {"even": even}, held)


def content(version: LabelVersion) -> list[tuple[Any, ...]]:
    rows = version.table.to_pylist()
    return [(*row.values(), *vector) for row, vector in zip(rows, version.embeddings.tolist(), strict=True)]


def test_a_version_stays_as_it_was() -> None:
    before = labels()
    kept = content(before)
    added = Added(["new"], ["a new one"], vectors(1, 1))(before)
    other = Added(["other", "more"], ["a", "b"], vectors(2, 2), {"price": [1.5, 2.5]})(before)
    updated = Updated(["l3"], ["another text"], vectors(1, 3))(added)
    removed = Removed(["l1", "new"])(updated)
    assert content(before) == kept
    assert added.uids.to_pylist() == [*before.uids.to_pylist(), "new"]
    assert other.table["price"].to_pylist() == [None] * 20 + [1.5, 2.5]
    assert content(added)[:20] == kept  # the room behind its rows went to `added`, so `other` has its own
    assert content(added)[20][4:] == tuple(vectors(1, 1)[0].tolist())
    assert content(other)[20][5:] == tuple(vectors(2, 2)[0].tolist())
    assert updated.table.to_pylist()[-1] == {"id": 3, "uid": "l3", "text": "another text", "even": False}
    assert updated.index_rows(["l3", "l4", "nobody"]).tolist() == [21, 4, -1]
    assert added.index_rows(["l3"]).tolist() == [3]
    assert removed.index_rows(["l1", "new", "l2"]).tolist() == [-1, -1, 2]
    assert len(removed) == 19
    for refused in (Removed(["nobody"]), Added(["l1"], ["x"], vectors(1, 1)), Added(["x"], ["x"], NONE[:0])):
        with pytest.raises(InputError):
            refused(before)
    with pytest.raises(InputError, match="NaN or infinite in 1 rows: 0"):
        Added(["x"], ["x"], np.full((1, DIMENSION), np.nan, np.float32))(before)


def test_compaction_is_a_change_that_numbers_anew() -> None:
    before = Removed(["l0", "l7"])(labels())
    after = Compacted()(before)
    assert content(after) == content(before)
    assert before.index_rows(["l8"]).tolist() == [8]
    assert after.index_rows(["l8", "l0"]).tolist() == [6, -1]
    assert after.rows(["l8"]).tolist() == before.rows(["l8"]).tolist() == [6]
    assert len(after.all_ids) == len(after.everything) == len(after.index.blocks) == 18
    assert Compacted()(after) is after
    assert after.next_id == 20
    again = Added(["l0"], ["came back"], vectors(1, 5))(after)
    assert again.ids.tolist()[-1] == 20  # an id never comes to mean another label


def test_the_store_forgets_removed_labels_when_they_are_many() -> None:
    store = LabelStore(labels())
    for number in range(20):
        held = store.version
        store.apply(Removed([f"l{number}"]))
        assert store.version.number == held.number + 1
        rows, living = len(store.version.all_ids), len(store.version)
        assert living == 19 - number
        assert rows - living <= versions.COMPACT_SHARE * rows
    store.apply(Added(["first"], ["again"], vectors(1, 9)))
    assert store.version.table.to_pylist() == [{"id": 20, "uid": "first", "text": "again", "even": None}]


def test_filters_are_rows_of_the_index() -> None:
    version = Removed(["l2", "l5"])(labels())
    selection = narrow(version, 2, ["l1", "l2", "l9", "nobody"], [["l1"], ["l5", "l4"]], "even == False")
    assert selection.allowed is not None
    assert np.flatnonzero(selection.allowed).tolist() == [1, 9]
    assert [rows.tolist() for rows in selection.exclude or []] == [[1], [4]]
    mask = np.arange(18) < 3  # in the order of the labels that are left: l0, l1, l3
    assert np.flatnonzero(narrow(version, 1, mask, None, None).allowed).tolist() == [0, 1, 3]  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"include is a mask of shape \(20,\), but there are 18 labels"):
        narrow(version, 1, np.ones(20, bool), None, None)
    with pytest.raises(InputError, match="named by uids, which are strings, but 3 is of type int"):
        narrow(version, 1, [3], None, None)  # type: ignore[list-item]


def test_nothing_removed_from_no_labels() -> None:
    empty = Compacted()(Removed([f"l{number}" for number in range(20)])(labels()))
    for change in (Removed([]), Updated([], [], NONE)):
        after = change(empty)
        assert (len(after), after.alive) == (0, None)
        assert after.index_rows(["l0"]).tolist() == [-1]
        request = SearchRequest(1, where="even")
        state = SearchState(request, after, [], ids=np.array([[3]]), scores=np.ones((1, 1), np.float32))
        assert FilterAndCut()(state).ranked()[0].tolist() == [[-1]]  # a label that a stage brings, and that is gone


def test_values_in_some_rows_of_a_column_of_any_pieces() -> None:
    rng = np.random.default_rng(0)
    values = [None if number % 7 == 0 else f"value {number}" for number in range(50)]
    for cuts in ([], [0], [10, 10, 30], [50, 50], list(range(1, 50))):
        bounds = [0, *cuts, 50]
        pieces = [pa.array(values[start:end], pa.string()) for start, end in pairwise(bounds)]
        for count in (0, 1, 80):
            rows = rng.integers(0, 50, count)
            taken = values_at(pa.chunked_array(pieces), rows)
            assert taken.type == pa.string()
            assert taken.to_pylist() == [values[row] for row in rows]
    assert len(values_at(pa.chunked_array([], pa.string()), np.zeros(0, np.int64))) == 0


def test_columns_are_set_from_values_or_a_table_by_uid() -> None:
    values = {"uid": ["l3", "l1"], "price": [3, 1]}
    for columns in (values, pa.table(values)):
        after = ColumnsSet.from_columns(columns)(Removed(["l0"])(labels()))
        assert after.table["price"].to_pylist() == [1, None, 3, *[None] * 16]
    with pytest.raises(InputError, match="needs a column uid beside price"):
        ColumnsSet.from_columns({"price": [1]})


def test_labels_in_another_index_are_numbered_as_it_is() -> None:
    before = Removed(["l0", "l7"])(labels())
    after = before.compacted(index_version("exact", before.embeddings, NONE))
    assert content(after) == content(before)
    assert after.alive is None
    assert after.index_rows(["l0", "l8"]).tolist() == [-1, 6]


def test_many_small_additions_keep_a_table_of_few_pieces() -> None:
    version = labels(2000)
    for number in range(300):
        version = Added([f"n{number}"], ["t"], vectors(1, number))(version)
    assert version.everything["uid"].num_chunks <= 66
    assert version.uids.to_pylist()[-3:] == ["n297", "n298", "n299"]
    np.testing.assert_array_equal(version.embeddings[2000:], np.concatenate([vectors(1, n) for n in range(300)]))
    assert version.index_rows(["n0", "n299"]).tolist() == [2000, 2299]


def test_columns_are_set_by_uid() -> None:
    before = Removed(["l1"])(labels(4))
    after = ColumnsSet(["l3", "l0"], {"even": [True, None], "note": ["x", "y"]})(before)
    assert after.table.select(["uid", "even", "note"]).to_pylist() == [
        {"uid": "l0", "even": None, "note": "y"},
        {"uid": "l2", "even": True, "note": None},
        {"uid": "l3", "even": True, "note": "x"},
    ]
    assert after.columns.field("note").type == pa.string()
    with pytest.raises(InputError, match="another type"):
        ColumnsSet(["l0"], {"even": ["a word"]})(before)
    with pytest.raises(InputError, match="no label 'l1'"):
        ColumnsSet(["l1"], {"even": [True]})(before)


def test_searches_see_one_version_while_it_changes() -> None:
    """Of each version that a thread reads, uids, ids, texts and embeddings belong together."""
    store, done, failures = LabelStore(labels(200)), threading.Event(), list[str]()
    numbers = set[int]()
    """Of the versions that were read."""

    def read() -> None:
        try:
            while not done.is_set():
                version = store.version
                scores, rows = version.index.search(version.embeddings[:5], 3)
                assert (rows >= 0).all()
                uids, ids = version.uids_at(rows), version.ids_at(rows)
                assert [int(uid.removeprefix("l")) for uid in uids.ravel()] == ids.ravel().tolist()
                texts = [f"text of {uid}" for uid in uids.ravel()]
                assert version.texts_of(version.rows(uids.ravel().tolist())) == texts
                vectors_of = version.index.blocks.take(rows.ravel()).reshape(5, 3, -1)
                np.testing.assert_allclose(
                    (vectors_of @ version.embeddings[:5, :, None])[..., 0], scores, rtol=1e-4, atol=1e-5
                )
                numbers.add(version.number)
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(200, 500):
            store.apply(Added([f"l{number}"], [f"text of l{number}"], vectors(1, number)))
            store.apply(Removed([f"l{number - 150}"]))
            if number % 10 == 0:
                before, end = len(numbers), time.monotonic() + 300  # a bound on waiting alone
                while len(numbers) == before and not failures and time.monotonic() < end:
                    time.sleep(0.0001)  # until a version is read that was not read before
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert len(numbers) > 20
    assert len(store.version) == 200
