"""New splits from the training queries: no label loses its last query in training, and everything goes with its query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import fail, xmc
from layouts import lines
from peak_memory import number_printed
from scipy.sparse import csr_matrix, random_array

from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.drawing import Splitting, draw_splits, groups_of_values
from xmc.data.images.ragged import RaggedImages
from xmc.data.readers import TabularColumns, open_source
from xmc.data.split_files import split_data_set
from xmc.errors import ConfigError, DataError, InputError, StoreError


def random_pairs(seed: int, queries: int, labels: int, density: float) -> csr_matrix:
    """Positives [queries, labels] in which some labels have one query and some queries have no label."""
    pairs = csr_matrix(random_array((queries, labels), density=density, rng=seed, dtype=np.float32))
    pairs.sort_indices()
    return pairs


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("grouped", [False, True])
def test_every_label_keeps_a_query_in_train(seed: int, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    pairs = random_pairs(seed, int(rng.integers(20, 400)), int(rng.integers(5, 300)), float(rng.uniform(0.001, 0.1)))
    queries = pairs.shape[0]
    groups = rng.integers(0, max(15, queries // 3), queries) if grouped else None
    splitting = Splitting(float(rng.uniform(0.05, 0.4)), float(rng.uniform(0.05, 0.4)), seed)
    drawn = draw_splits(pairs, splitting, groups)
    assert list(drawn.rows) == ["train", "test", "validation"]
    assert sorted(np.concatenate(list(drawn.rows.values())).tolist()) == list(range(queries))
    with_query = {name: set(pairs[rows].indices.tolist()) for name, rows in drawn.rows.items()}
    assert with_query["train"] == set(pairs.indices.tolist())
    assert {name: len(labels) for name, labels in with_query.items()} == drawn.labels
    for name, wanted in drawn.wanted.items():
        assert 0 < len(drawn.rows[name]) <= (wanted if groups is None else max(wanted, np.bincount(groups).max()))
    if groups is not None:
        sides = [set(groups[rows].tolist()) for rows in drawn.rows.values()]
        assert sum(map(len, sides)) == len(set.union(*sides)) == drawn.groups
    again = draw_splits(pairs, splitting, groups)
    assert all((again.rows[name] == rows).all() for name, rows in drawn.rows.items())


def test_labels_give_their_share_and_the_sizes_are_those_asked_for() -> None:
    positives = Dataset.load("wordnet-8k").split("train").positives
    drawn = draw_splits(positives, Splitting(0.1, 0.2))
    assert {name: len(rows) for name, rows in drawn.rows.items()} == {"train": 7919, "test": 1131, "validation": 2263}
    counts = np.asarray((positives > 0).sum(axis=0)).ravel()
    assert drawn.tied == (counts == 1).sum()
    for name, share in (("test", 0.1), ("validation", 0.2)):
        of_split = np.asarray((positives[drawn.rows[name]] > 0).sum(axis=0)).ravel()
        for low, high in ((2, 5), (5, 30), (30, 10**6)):
            labels = (counts >= low) & (counts < high)
            assert abs(of_split[labels].sum() / counts[labels].sum() - share) < 0.02
    other = draw_splits(positives, Splitting(0.1, 0.2, seed=1))
    assert other.rows["test"].tolist() != drawn.rows["test"].tolist()


def test_what_cannot_be_reached_is_said() -> None:
    tied = csr_matrix(np.eye(10, dtype=np.float32))
    with pytest.raises(DataError, match="No query of the 10 queries in train can become test"):
        draw_splits(tied, Splitting(0.1))
    some = csr_matrix(np.vstack([np.eye(8), np.eye(8)[:2]]).astype(np.float32))
    drawn = draw_splits(some, Splitting(0.5))
    assert len(drawn.rows["test"]) == 2
    assert drawn.sentences() == [
        "labels with a query: 8 in train, 2 in test; each of them has one in train",
        "6 labels have one query only, which stays in train",
        "test has 2 queries where 5 were asked for: with more, a label would have none in train",
    ]


def test_groups_that_are_larger_than_what_is_asked_for() -> None:
    pairs = csr_matrix(np.ones((30, 1), np.float32))
    drawn = draw_splits(pairs, Splitting(0.1), np.repeat([5, 7, 9], [14, 10, 6]))
    assert drawn.rows["test"].tolist() == list(range(24, 30))
    assert drawn.sentences()[-1] == "test has 6 queries where 3 were asked for: no group is smaller"
    with pytest.raises(DataError, match="No group of the 30 queries in train can become test"):
        draw_splits(pairs, Splitting(0.1), np.zeros(30, np.int64))


def test_groups_of_values() -> None:
    numbers = groups_of_values(pa.chunked_array([["a", None, "b"], ["a", None]]))
    assert numbers[0] == numbers[3]
    assert len(set(numbers.tolist())) == 4  # each null is alone
    assert len(set(groups_of_values(pa.array([3, 1, 3])).tolist())) == 2


def whole(directory: Path) -> Dataset:
    """A data set with everything that may go with a query."""
    count, rng = 40, np.random.default_rng(0)
    texts = [f"query {row}" for row in range(count)]
    uids = [f"q{row}" for row in range(count)]
    labels = [sorted(rng.choice(5, 2, replace=False).tolist()) for _ in range(count)]
    rejected = [[next(label for label in range(6) if label not in of)] for of in labels]
    images = {
        "train": RaggedImages.from_arrays([np.full((row % 3, 4), row) for row in range(count)], 4),
        "labels": RaggedImages.from_arrays([np.full((1, 4), row) for row in range(6)]),
        "calibration": RaggedImages.from_arrays([np.full((1, 4), 9)]),
    }
    Dataset.from_lists(
        "whole",
        [f"label {row}" for row in range(6)],
        {"train": (texts, labels), "calibration": (["another"], [[1]])},
        query_uids={"train": uids, "calibration": ["c"]},
        rejected={"train": rejected},
        filters={"train": np.array([[row, 5] for row in range(0, count, 2)]), "calibration": np.array([[0, 2]])},
        judged={"train": [(uid, str(row % 5), "wrong") for row, uid in enumerate(uids)]},
        images=images,
    ).save(directory)
    return Dataset.load(directory)


def of_uids(data: Dataset, splits: tuple[str, ...]) -> dict[str, Any]:
    """All that is known of each query, by its uid."""
    known = {}
    for name in splits:
        split, pairs = data.split(name), data.filter(name)
        judged = data.judgements(name)
        assert split.images is not None
        for row, uid in enumerate(split.uids.to_pylist()):
            start, end = split.images.offsets[row : row + 2]
            known[uid] = (
                split.texts[row].as_py(),
                split.positives[row].indices.tolist(),
                split.rejected[row].indices.tolist(),
                pairs[pairs[:, 0] == row, 1].tolist(),
                [] if judged is None else judged.wrong[row].indices.tolist(),
                split.images.values[start:end].tolist(),
            )
    return known


def test_everything_goes_with_its_query(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    done = split_data_set(tmp_path / "data", tmp_path / "out", Splitting(0.2, 0.1, 3))
    out = Dataset.load(tmp_path / "out")
    assert out.properties["splits"] == {"train": 28, "test": 8, "validation": 4, "calibration": 1}
    assert out.properties["split_by"] == {"test": 0.2, "validation": 0.1, "seed": 3}
    assert of_uids(out, ("train", "test", "validation", "calibration")) == of_uids(data, ("train", "calibration"))
    assert out.labels.images is not None
    assert out.labels.texts.equals(data.labels.texts)
    memory = data.with_splits(0.2, 0.1, 3)
    assert memory.fingerprint == out.fingerprint
    del out.properties["fingerprint"]
    assert memory.fingerprint == out.fingerprint == done.dataset.fingerprint
    memory.save(tmp_path / "saved")
    saved = Dataset.load(tmp_path / "saved")
    assert saved.fingerprint == memory.fingerprint
    assert saved.properties["split_by"] == {"test": 0.2, "validation": 0.1, "seed": 3}
    assert list((tmp_path / "out").glob(".*")) == []


PEOPLE = ["ann", "bob", "cem", "dia", "eve", "fay"]


def test_groups_of_a_source_stay_together(tmp_path: Path) -> None:
    rows = [f"{row},text {row},{'ab'[row % 2]},{PEOPLE[row % 6]}" for row in range(60)]
    lines(tmp_path / "data.csv", ["uid,text,labels,author", *rows])
    done = xmc("data", "convert", tmp_path / "data.csv", tmp_path / "out", "--group", "author", "--test", 0.2)
    assert done.returncode == 0, done.stderr
    assert "queries: 50 train, 10 test" in done.stdout
    columns = TabularColumns(group="author")
    undivided = convert(open_source(tmp_path / "data.csv", None, columns), tmp_path / "undivided").dataset
    plain = convert(open_source(tmp_path / "data.csv"), tmp_path / "plain").dataset
    assert undivided.fingerprint == plain.fingerprint
    again = split_data_set(undivided, tmp_path / "again", Splitting(0.2, group="author")).dataset
    copied = convert(open_source(tmp_path / "undivided"), tmp_path / "copied").dataset
    copied.save(tmp_path / "saved")
    saved = split_data_set(tmp_path / "saved", tmp_path / "saved-split", Splitting(0.2, group="author")).dataset
    assert Dataset.load(tmp_path / "out").fingerprint == again.fingerprint == saved.fingerprint
    assert undivided.with_splits(0.2, groups="author").fingerprint == again.fingerprint
    groups = [PEOPLE[row % 6] for row in range(60)]
    assert plain.with_splits(0.2, groups=groups).fingerprint == again.fingerprint
    tables = [pq.read_table(tmp_path / "again" / f"queries-{split}.parquet") for split in ("train", "test")]
    train, test = (set(table["group"].to_pylist()) for table in tables)
    assert train | test == set(PEOPLE)
    assert not train & test
    with pytest.raises(DataError, match=r"has no column 'author', only uid, text.*--group` keeps a column"):
        split_data_set(plain, tmp_path / "no", Splitting(0.2, group="author"))
    with pytest.raises(DataError, match="'autor'"):
        convert(open_source(tmp_path / "data.csv", None, TabularColumns(group="autor")), tmp_path / "no")
    with pytest.raises(InputError, match="groups has 3 values for 60 training queries"):
        plain.with_splits(0.2, groups=["a", "b", "c"])
    with pytest.raises(InputError, match="no column 'author', only uid, text"):
        plain.with_splits(0.2, groups="author")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("splitting", "message"),
    [
        ({}, "must be above 0 and leave some queries"),
        ({"test": 0.5, "validation": 0.5}, "leave some queries"),
        ({"test": 1.0}, "The share test must be a number from 0 to below 1, but is 1.0"),
        ({"test": -0.1}, "but is -0.1"),
        ({"test": "0.1"}, "but is '0.1'"),
        ({"test": 0.1, "seed": -1}, "The seed must be a whole number of at least 0, but is -1"),
    ],
)
def test_shares_that_do_not_fit(splitting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Splitting(**splitting)


def test_splits_that_are_there_are_not_drawn_again(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has a split test already; leave its share out"):
        split_data_set("wordnet-8k", tmp_path / "out", Splitting(0.1))
    fail(xmc("data", "split", "wordnet-8k", tmp_path / "out"), "must be above 0")
    assert not (tmp_path / "out").exists()
    done = xmc("data", "split", "wordnet-8k", tmp_path / "out", "--validation", 0.1, "--seed", 4)
    assert "queries: 10,182 train, 1,131 validation, 2,828 test" in done.stdout
    out, shipped = Dataset.load(tmp_path / "out"), Dataset.load("wordnet-8k")
    assert out.filter("test").tolist() == shipped.filter("test").tolist()
    assert out.split("test").texts.equals(shipped.split("test").texts)
    with pytest.raises(StoreError, match="already holds the data set"):
        split_data_set("wordnet-8k", tmp_path / "out", Splitting(validation=0.2))
    with pytest.raises(DataError, match="has a split validation already"):
        split_data_set(tmp_path / "out", tmp_path / "out", Splitting(validation=0.2), overwrite=True)
    assert Dataset.load(tmp_path / "out").fingerprint == out.fingerprint
    only = Dataset.from_lists("only", ["a"], {"test": (["x"], [[0]])})
    with pytest.raises(DataError, match="has no split train to draw from, only test"):
        only.with_splits(0.1)


STREAM = """
import sys
from pathlib import Path
from xmc.data.drawing import Splitting
from xmc.data.split_files import split_data_set
split_data_set(sys.argv[1], sys.argv[3], Splitting(0.1))
before = peak()
split_data_set(sys.argv[2], sys.argv[4], Splitting(0.1))
print(peak() - before)
"""


@pytest.mark.slow
def test_splitting_streams(tmp_path: Path) -> None:
    """Three times the texts, 120 MB more, need less than these: both fill some batches."""
    for name, count in (("small", 20_000), ("big", 60_000)):
        labels = [[row % 10] for row in range(count)]
        data = Dataset.from_lists(
            name, list("abcdefghij"), {"train": ([f"{row} " + "word " * 600 for row in range(count)], labels)}
        )
        data.save(tmp_path / name)
    assert number_printed(STREAM, *(tmp_path / name for name in ("small", "big", "out1", "out2"))) < 100
    assert len(Dataset.load(tmp_path / "out2").split("test")) == 6_000
