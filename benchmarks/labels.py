"""Table labels: a fifth of wordnet-8k's labels is left out of training and added afterwards, by text and by example.

The seed draws the labels and the examples, which are training queries. "some" adds the labels that six training queries and a
test query have, "all" every label that was left out. Metrics are of the test queries, and their true labels are those that are
there: AP is the mean over the added labels of the average precision of a ranking of queries; R@10 of new, of trained and of
all labels is the share of true pairs in the first ten.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from measurements import Measurement
from scipy.sparse import csc_matrix

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.search.retriever import Retriever
from xmc.training.trainer import train

__all__ = ["Held", "measure", "run"]

SHARE = 0.2
"""Of the labels is left out."""
LEAST_QUERIES = 6
METHODS: dict[str, dict[str, Any]] = {
    "text, raw": {"score": "raw"},
    "text": {},
    "1 example and text": {"examples": 1},
    "5 examples and text": {"examples": 5},
    "5 examples": {"examples": 5, "texts": False},
    "5 examples and text, rate of one": {"examples": 5, "multiple": 1.0},
    "5 examples and text, raw": {"examples": 5, "score": "raw"},
    "20 examples and text": {"examples": 20},
}
"""How labels are added. multiple: of the rate at which trained labels enter the best ten, in place of the default."""
OF_ALL = ("text, raw", "text")
"""What is measured where every label that was left out is added."""


@dataclass(frozen=True)
class Held:
    """A data set and the rows of the labels that training does not see."""

    data: Dataset
    hidden: npt.NDArray[np.int64]

    @classmethod
    def drawn(cls, data: Dataset, seed: int) -> Held:
        """A share of the labels, drawn at random."""
        labels = len(data.labels)
        return cls(data, np.sort(np.random.default_rng(seed).choice(labels, int(SHARE * labels), replace=False)))

    def without(self) -> Dataset:
        """The training queries, with the other labels alone."""
        seen = np.setdiff1d(np.arange(len(self.data.labels)), self.hidden)
        split = self.data.split("train")
        positives = split.positives[:, seen].tocsr()
        lists = [rows.tolist() for rows in np.split(positives.indices, positives.indptr[1:-1])]
        texts, uids = self.named(seen)
        return Dataset.from_lists("hidden", texts, {"train": (split.texts.to_pylist(), lists)}, label_uids=uids)

    def named(self, rows: npt.NDArray[np.int64]) -> tuple[list[str], list[str]]:
        """Texts and uids of labels."""
        labels = self.data.labels
        return labels.texts.take(rows).to_pylist(), labels.uids.take(rows).to_pylist()


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Train once without the labels of a draw, and add them in every way."""
    held = Held.drawn(Dataset.load("wordnet-8k"), seed)
    with tempfile.TemporaryDirectory() as folder:
        train(held.without(), TrainConfig(seed=seed), Path(folder) / "run")
        retriever = Retriever.load(Path(folder) / "run")
    for method, rows in measure(retriever, held, seed, methods):
        yield [Measurement("labels", method, metric, value, unit, seed) for metric, value, unit in rows]


def measure(
    retriever: Retriever, held: Held, seed: int, methods: Sequence[str]
) -> Iterator[tuple[str, list[tuple[str, float, str]]]]:
    """Rows (metric, value, unit) of each method whose name begins with one of `methods`; of all without such.

    retriever: trained without the hidden labels.
    """
    train_split, test = held.data.split("train"), held.data.split("test")
    pairs = train_split.positives.tocsc()
    counts, tested = (np.diff(positives.tocsc().indptr)[held.hidden] for positives in (pairs, test.positives))
    queries = retriever.embed_queries(test.texts.to_pylist())
    groups = {"some": held.hidden[(counts >= LEAST_QUERIES) & (tested > 0)], "all": held.hidden}
    for group, added in groups.items():
        for method in ("not added", *(METHODS if group == "some" else OF_ALL)):
            name = f"{group}: {method}"
            if methods and not name.startswith(tuple(methods)):
                continue
            changed = copy.deepcopy(retriever)
            scale = _add(changed, held, added, pairs, seed, METHODS[method]) if method in METHODS else 1.0
            yield name, _metrics(changed, held, added, queries, scale, method in METHODS)


def _add(
    retriever: Retriever, held: Held, added: npt.NDArray[np.int64], pairs: csc_matrix, seed: int, how: dict[str, Any]
) -> float:
    """Add labels as a method says; the scale that was found."""
    texts, uids = held.named(added)
    rate = how["multiple"] * 10 / len(retriever) if "multiple" in how else None
    options: dict[str, Any] = {"score": how.get("score", "rate"), "expected_rate": rate}
    if "examples" in how:
        chance, given = np.random.default_rng(seed), held.data.split("train").texts
        columns = [pairs.indices[pairs.indptr[row] : pairs.indptr[row + 1]] for row in added]
        options["examples"] = [given.take(chance.permutation(rows)[: how["examples"]]).to_pylist() for rows in columns]
    return retriever.add_labels(texts if how.get("texts", True) else None, uids, **options)[0].scale


def _metrics(
    retriever: Retriever,
    held: Held,
    added: npt.NDArray[np.int64],
    queries: npt.NDArray[np.float32],
    scale: float,
    are_there: bool,
) -> list[tuple[str, float, str]]:
    """Of one retriever, with the labels added or without."""
    row_of = {uid: row for row, uid in enumerate(held.data.labels.uids.to_pylist())}
    found, _ = retriever.predict(queries, 10)
    best = np.vectorize(row_of.__getitem__, otypes=[np.int64])(found)
    truth = held.data.split("test").positives.toarray() > 0
    new = np.zeros(truth.shape[1], bool)
    new[added] = True
    truth[:, np.setdiff1d(held.hidden, added)] = False
    hits = np.take_along_axis(truth, best, 1)
    right = np.zeros_like(truth)
    np.put_along_axis(right, best, hits, 1)
    rows = [("P@1", 100 * hits[:, 0].mean(), "percent"), ("P@5", 100 * hits[:, :5].mean(), "percent")]
    for name, which in (("R@10", np.ones_like(new)), ("new R@10", new), ("trained R@10", ~new)):
        rows.append((name, 100 * right[:, which].sum() / truth[:, which].sum(), "percent"))
    if are_there:
        scores = queries @ retriever.labels.vectors_of(held.named(added)[1]).T
        rows.append(("AP", 100 * _average_precision(scores, truth[:, added]), "percent"))
        rows.append(("scale", scale, ""))
    return [(metric, float(value), unit) for metric, value, unit in rows]


def _average_precision(scores: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_]) -> float:
    """The mean over columns with a true row of the average precision of a ranking of rows."""
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(truth, order, 0)
    precision = np.cumsum(ranked, axis=0) / np.arange(1, len(ranked) + 1)[:, None]
    positives = ranked.sum(axis=0)
    return float(((precision * ranked).sum(axis=0)[positives > 0] / positives[positives > 0]).mean())
