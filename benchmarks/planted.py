"""Data sets of imperfect supervision, made from a good one: a planted corruption is known, so that what repairs it is judged.

Every function takes a data set and gives another in memory, whose training split is changed; labels, other splits and
filters stay as they are. The same seed gives the same corruption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import csr_matrix

from xmc.data.dataset import Dataset

__all__ = [
    "bag_rows",
    "bag_shares",
    "beyond",
    "drop",
    "halves_of_labels",
    "keys_of",
    "not_given",
    "one_positive",
    "removed",
    "similar_labels",
    "strip_labels",
    "with_left_out",
    "with_rejected",
    "with_train",
    "wrong_by_frequency",
    "wrong_labels",
    "wrong_similar",
]

Rows = npt.NDArray[np.int64]
NEIGHBOURS = 20
"""Number of labels that a similar wrong label is drawn from."""
LEAST_WEIGHT = 0.05
"""Of a word in the TF-IDF row of a label, whose length is 1; lighter words are left out."""
ROUNDS = 200
"""Number of draws after which a wrong label that has not been found is given up."""


def with_train(
    data: Dataset,
    keys: Rows,
    *,
    left_out: Rows | None = None,
    rejected: Rows | None = None,
) -> Dataset:
    """The data set with other known pairs in its training split.

    keys: the positives, query · number of labels + label, int64, in any order. left_out: pairs that count nowhere, likewise,
    beside those of the data set. rejected: pairs that were judged not relevant.
    """
    train, labels = data.split("train"), len(data.labels)
    splits = {name: (data.split(name).texts.to_pylist(), _lists(data.split(name).positives)) for name in data.splits}
    splits["train"] = (train.texts.to_pylist(), _lists_of_keys(keys, len(train), labels))
    filters: dict[str, Rows] = {name: data.filter(name) for name in data.splits}
    if left_out is not None:
        filters["train"] = np.concatenate([filters["train"], np.stack(np.divmod(np.sort(left_out), labels), axis=1)])
    judged: Mapping[str, Any] = {} if rejected is None else {"train": _lists_of_keys(rejected, len(train), labels)}
    return Dataset.from_lists(
        data.name,
        data.labels.texts.to_pylist(),
        splits,
        label_uids=data.labels.uids.to_pylist(),
        query_uids={name: data.split(name).uids.to_pylist() for name in data.splits},
        rejected=judged,
        filters=filters,
        propensity=data.propensity,
    )


def keys_of(data: Dataset) -> Rows:
    """The positives of the training split, query · number of labels + label, int64, ascending."""
    return _keys(data.split("train").positives)


def removed(clean: Dataset, planted: Dataset) -> Rows:
    """Keys of the positives that a corruption took away, ascending."""
    return np.setdiff1d(keys_of(clean), keys_of(planted), assume_unique=True)


def with_left_out(data: Dataset, keys: Rows) -> Dataset:
    """The data set with pairs that count nowhere in training: with `removed` an oracle's of missing positives."""
    return with_train(data, keys_of(data), left_out=keys)


def with_rejected(clean: Dataset, data: Dataset, best: Rows, wrong: float = 0.0, seed: int = 0) -> Dataset:
    """The data set with what somebody says who has seen the clean one, of each query's best labels that are not given.

    best: int64 [n, k], the labels, -1 for none; see `not_given`. What is not true is rejected; what is true stays unlabelled.
    wrong: the share of all rejections that are of true pairs; fewer where there are not as many among the best.
    """
    labels = len(data.labels)
    rows, columns = np.nonzero(best >= 0)
    shown = np.unique(rows * labels + best[rows, columns])
    shown = np.setdiff1d(shown, np.concatenate([keys_of(data), _filtered(data)]))
    true = np.isin(shown, keys_of(clean))
    rejected = shown[~true]
    if wrong:
        count = min(int(true.sum()), round(len(rejected) * wrong / (1 - wrong)))
        mistaken = np.random.default_rng(seed).choice(shown[true], count, replace=False)
        rejected = np.concatenate([rejected, mistaken])
    return with_train(data, keys_of(data), rejected=rejected)


def not_given(data: Dataset, best: Rows, count: int) -> Rows:
    """The first labels of each row of `best` [n, k] that are not given to the query, int64 [n, count]; -1 beyond the last."""
    labels, chosen = len(data.labels), np.full((len(best), count), -1, np.int64)
    given = np.isin(np.arange(len(best))[:, None] * labels + best, keys_of(data)) | (best < 0)
    place = np.cumsum(~given, axis=1) - 1
    rows, columns = np.nonzero(~given & (place < count))
    chosen[rows, place[rows, columns]] = best[rows, columns]
    return chosen


def beyond(data: Dataset, best: Rows) -> Rows:
    """Keys of the given pairs whose label is not among the query's `best` [n, k], ascending."""
    ranked = np.arange(len(best))[:, None] * len(data.labels) + best
    return np.setdiff1d(keys_of(data), ranked[best >= 0])


def wrong_by_frequency(data: Dataset, share: float, seed: int) -> Dataset:
    """Wrong pairs are added, `share` for each given pair.

    Each is of a query of a given pair drawn at random, and a label drawn by the number of its training queries; never a true
    pair, nor one of the filter.
    """
    generator = np.random.default_rng(seed)
    queries = _drawn_pairs(generator, keys_of(data), share) // len(data.labels)
    return with_train(data, _with_wrong(data, queries, _by_frequency(data, generator)))


def wrong_similar(data: Dataset, share: float, seed: int) -> Dataset:
    """Wrong pairs are added, `share` for each given pair: of the pair's query, and a label that is similar to the pair's.

    It is drawn from the 20 labels whose texts, their own and those of their training queries, are nearest to those of the given
    label: cosines of TF-IDF rows. Never a true pair, nor one of the filter.
    """
    generator, labels = np.random.default_rng(seed), len(data.labels)
    queries, given = np.divmod(_drawn_pairs(generator, keys_of(data), share), labels)
    nearest = similar_labels(data, NEIGHBOURS)

    def draw(which: Rows) -> Rows:
        return nearest[given[which], generator.integers(0, NEIGHBOURS, len(which))]

    return with_train(data, _with_wrong(data, queries, draw))


def similar_labels(data: Dataset, count: int) -> Rows:
    """For each label the `count` labels of the nearest texts, int64 [L, count], without itself; see `wrong_similar`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    train = data.split("train")
    vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    rows = vectorizer.fit_transform([*train.texts.to_pylist(), *data.labels.texts.to_pylist()])
    queries, texts = rows[: len(train)], rows[len(train) :]
    profiles = normalize(train.positives.astype(bool).astype(np.float32).T @ queries) + texts
    profiles = normalize(profiles).tocsr()
    profiles.data[profiles.data < LEAST_WEIGHT] = 0  # they hardly change a cosine
    profiles.eliminate_zeros()
    profiles = normalize(profiles)
    nearest = np.zeros((len(data.labels), count), np.int64)
    for start in range(0, len(nearest), 1024):
        cosines = (profiles[start : start + 1024] @ profiles.T).toarray()
        chunk = np.arange(len(cosines))
        cosines[chunk, start + chunk] = -1
        best = np.argpartition(-cosines, count, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(cosines, best, 1), axis=1, kind="stable")
        nearest[start : start + 1024] = np.take_along_axis(best, order, 1)
    return nearest


def drop(data: Dataset, share: float, seed: int) -> Dataset:
    """A share of the given pairs, drawn at random, is missing; a query may lose all."""
    generator, keys = np.random.default_rng(seed), keys_of(data)
    return with_train(data, generator.choice(keys, round((1 - share) * len(keys)), replace=False))


def strip_labels(data: Dataset, share: float, seed: int) -> Dataset:
    """A share of the labels with a given pair loses all pairs."""
    keys, labels = keys_of(data), len(data.labels)
    known = np.unique(keys % labels)
    stripped = np.random.default_rng(seed).choice(known, round(share * len(known)), replace=False)
    return with_train(data, keys[~np.isin(keys % labels, stripped)])


def one_positive(data: Dataset, seed: int) -> Dataset:
    """Each query keeps one of its given pairs, drawn at random."""
    keys = np.random.default_rng(seed).permutation(keys_of(data))
    _, first = np.unique(keys // len(data.labels), return_index=True)
    return with_train(data, keys[first])


def halves_of_labels(data: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Two data sets, each with the given pairs of one half of the labels, drawn at random."""
    keys, labels = keys_of(data), len(data.labels)
    half = np.random.default_rng(seed).permutation(labels) < labels // 2
    return with_train(data, keys[half[keys % labels]]), with_train(data, keys[~half[keys % labels]])


def bag_rows(data: Dataset, size: int, seed: int, random: bool = True) -> list[Rows]:
    """The training queries in bags of a size, the last one smaller: int64 rows, ascending within a bag.

    random: drawn at random; else sorted by subject: by the most frequent label, then by the next, so that the queries of a bag
    have most labels in common.
    """
    positives = data.split("train").positives
    queries = positives.shape[0]
    order: Rows
    if random:
        order = np.random.default_rng(seed).permutation(queries)
    else:
        counts = np.bincount(positives.indices, minlength=positives.shape[1])
        place = np.empty(len(counts), np.int64)
        place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        subjects = [np.sort(place[row]).tolist() for row in np.split(positives.indices, positives.indptr[1:-1])]
        order = np.array(sorted(range(queries), key=subjects.__getitem__), np.int64)
    return [np.sort(order[start : start + size]) for start in range(0, queries, size)]


def bag_shares(data: Dataset, bags: Sequence[Rows]) -> Dataset:
    """What a bag knows as relevances: each of its queries has all of its labels, by the share of its queries that have them.

    Without filters and other splits than train.
    """
    train = data.split("train")
    true = train.positives.astype(bool).astype(np.float32)
    lists: list[list[str]] = [[] for _ in range(len(train))]
    shares: list[list[float]] = [[] for _ in range(len(train))]
    uids = np.array(data.labels.uids.to_pylist(), object)
    for rows in bags:
        counts = np.asarray(true[rows].sum(axis=0)).ravel()
        labels = np.flatnonzero(counts)
        for row in rows:
            lists[row], shares[row] = uids[labels].tolist(), (counts[labels] / len(rows)).tolist()
    queries = pa.table({"uid": train.uids, "text": train.texts, "labels": lists, "relevance": shares})
    table = pa.table({"uid": data.labels.uids, "text": data.labels.texts})
    return Dataset.from_arrow(
        queries, uid="uid", relevance="relevance", label_table=table, name=data.name, propensity=data.propensity
    )


def wrong_labels(data: Dataset, queries: Rows, draw: Callable[[Rows], Rows]) -> Rows:
    """A wrong label for each of `queries`, int64, each pair once: drawn anew until it is not given, in the filter or taken.

    draw: labels int64 for positions of `queries`. -1 where none was found in ROUNDS.
    """
    labels, found = len(data.labels), np.full(len(queries), -1, np.int64)
    taken = np.union1d(keys_of(data), _filtered(data))
    missing = np.arange(len(queries))
    for _ in range(ROUNDS):
        if not len(missing):
            break
        drawn = draw(missing)
        keys = queries[missing] * labels + drawn
        _, first = np.unique(keys, return_index=True)
        new = np.zeros(len(keys), bool)
        new[first] = ~np.isin(keys[first], taken)
        found[missing[new]] = drawn[new]
        taken, missing = np.union1d(taken, keys[new]), missing[~new]
    return found


def _with_wrong(data: Dataset, queries: Rows, draw: Callable[[Rows], Rows]) -> Rows:
    """Keys of the given pairs and of those of `wrong_labels`."""
    wrong = wrong_labels(data, queries, draw)
    return np.concatenate([keys_of(data), (queries * len(data.labels) + wrong)[wrong >= 0]])


def _by_frequency(data: Dataset, generator: np.random.Generator) -> Callable[[Rows], Rows]:
    """Draws labels by the number of their training queries."""
    counts = np.bincount(data.split("train").positives.indices, minlength=len(data.labels))
    return lambda which: generator.choice(len(counts), len(which), p=counts / counts.sum())


def _filtered(data: Dataset) -> Rows:
    """Keys of the pairs of the training split's filter."""
    pairs = data.filter("train")
    return pairs[:, 0] * len(data.labels) + pairs[:, 1]


def _drawn_pairs(generator: np.random.Generator, keys: Rows, share: float) -> Rows:
    """`share` pairs for each given one: each at most once more often than another."""
    count = round(share * len(keys))
    whole, rest = divmod(count, len(keys))
    return np.concatenate([*[keys] * whole, generator.choice(keys, rest, replace=False)])


def _keys(pairs: csr_matrix) -> Rows:
    queries, labels = pairs.shape
    return np.repeat(np.arange(queries, dtype=np.int64), np.diff(pairs.indptr)) * labels + pairs.indices


def _lists(pairs: csr_matrix) -> list[list[int]]:
    return [row.tolist() for row in np.split(pairs.indices, pairs.indptr[1:-1])]


def _lists_of_keys(keys: Rows, queries: int, labels: int) -> Sequence[Sequence[int]]:
    ordered = np.sort(keys)
    bounds = np.searchsorted(ordered, np.arange(1, queries) * labels)
    return [row.tolist() for row in np.split(ordered % labels, bounds)]
