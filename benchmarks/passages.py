"""Table passages: long documents, differences of queries, and training on bags, with the static encoder on wordnet-8k.

Documents are several test queries joined, in an order that the seed draws; relevant are the labels of all of them. Differences
are of pairs of test queries that share a label of at most 100 training queries: a query less another, whose labels are not
relevant. Bags are training queries joined in fours, of which a run learns that has seen no single one. XMC_RUNS names a folder
with runs static-w8k-SEED, trained with a tenth of the queries held out; without it they are trained here.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from measurements import Measurement
from scipy.sparse import csr_matrix

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.data.held_out import uses_of_queries
from xmc.evaluation.evaluate import evaluate
from xmc.search.queries import Query
from xmc.search.retriever import Retriever
from xmc.training.trainer import train

__all__ = ["run"]

JOINED = (4, 8, 16)
"""Number of queries of a document."""
PAIRS = 1_500
"""Number of differences."""
RARE = 100
"""Number of training queries that a shared label has at most."""
BAG = 4
REPEATS = 3
HELD_OUT = 0.1
Ask = Callable[[list[str]], "str | Query"]
DOCUMENTS: dict[str, Ask] = {
    "one vector": " ".join,
    "mean": lambda texts: Query(texts),
    "max": lambda texts: Query(passages=texts, combine="max"),
    "logmeanexp": lambda texts: Query(passages=texts),
}
"""What is asked for the texts of a document."""
Subtract = Callable[[str, str], "str | Query"]
DIFFERENCES: dict[str, Subtract] = {
    "the first alone": lambda first, second: first,
    "weight -0.5": lambda first, second: Query({first: 1.0, second: -0.5}),
    "minus": lambda first, second: Query([first]).minus(second),
}
"""How one query is taken from another."""
BAGS = ("single texts", "bags", "bags, one vector", "bags, every label for every text")


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure with one seed."""
    data = Dataset.load("wordnet-8k")

    def wanted(name: str) -> bool:
        return not methods or any(name.startswith(method) for method in methods)

    with tempfile.TemporaryDirectory() as folder:
        if wanted("documents") or wanted("difference"):
            retriever = _static(data, seed, Path(folder))
            for joined in JOINED:
                for name, ask in DOCUMENTS.items():
                    if wanted("documents"):
                        yield _documents(retriever, data, seed, joined, name, ask)
            for name, subtract in DIFFERENCES.items():
                if wanted("difference"):
                    yield _difference(retriever, data, seed, name, subtract)
        for name in BAGS:
            if wanted(name):
                yield _bags(data, seed, name, Path(folder) / "bags")


def _static(data: Dataset, seed: int, folder: Path) -> Retriever:
    """The run of a seed with the default configuration."""
    runs = os.environ.get("XMC_RUNS")
    if runs:
        return Retriever.load(Path(runs) / f"static-w8k-{seed}")
    config = TrainConfig.from_mapping({"seed": seed, "validation": {"share": HELD_OUT, "patience": 20}})
    train(data, config, folder / "static")
    return Retriever.load(folder / "static")


def _joined(positives: csr_matrix, rows: npt.NDArray[np.int64]) -> csr_matrix:
    """Which labels some of the queries in each line of `rows`, [n, m], have; bool [n, L]."""
    queries, starts = rows.ravel(), np.arange(len(rows) + 1) * rows.shape[1]
    which = csr_matrix((np.ones(len(queries)), queries, starts), shape=(len(rows), positives.shape[0]))
    return ((which @ (positives > 0).astype(np.float32)) > 0).tocsr()


def _hits(retriever: Retriever, queries: list[str | Query], truth: csr_matrix, k: int) -> npt.NDArray[np.bool_]:
    """Which of the k best labels are true, bool [n, k]."""
    ids, _ = retriever.search(queries, k)
    return np.array([np.isin(row, truth[number].indices) for number, row in enumerate(ids)])


def _documents(retriever: Retriever, data: Dataset, seed: int, joined: int, name: str, ask: Ask) -> list[Measurement]:
    test = data.split("test")
    order = np.random.default_rng(seed).permutation(len(test))
    rows = order[: len(order) // joined * joined].reshape(-1, joined)
    truth, texts = _joined(test.positives, rows), test.texts.to_pylist()
    documents = [ask([texts[row] for row in line]) for line in rows]
    hits, sizes = _hits(retriever, documents, truth, 100), np.maximum(1, np.diff(truth.indptr))
    values = {"P@1": hits[:, 0].mean(), "P@5": hits[:, :5].mean()}
    for k in (5 * joined, 100):
        values[f"R@{k}"] = (hits[:, :k].sum(axis=1) / sizes).mean()
    method = f"documents of {joined}, {name}"
    measured = [
        Measurement("passages", method, metric, 100 * float(value), "%", seed) for metric, value in values.items()
    ]
    plain = [texts[row] for row in rows.ravel()]
    ratio = float(np.median([_seconds(retriever, documents) / _seconds(retriever, plain) for _ in range(REPEATS)]))
    return [*measured, Measurement("passages", method, "time, of that of the texts alone", ratio, "", seed)]


def _seconds(retriever: Retriever, queries: list[str | Query] | list[str]) -> float:
    start = time.perf_counter()
    retriever.search(queries, 10)
    return time.perf_counter() - start


def _difference(retriever: Retriever, data: Dataset, seed: int, name: str, subtract: Subtract) -> list[Measurement]:
    test, counts = data.split("test"), data.targets("train").positive_counts
    positives = (test.positives > 0).tocsr()
    shared = (positives[:, counts <= RARE].astype(np.int32) @ positives[:, counts <= RARE].T.astype(np.int32)).tocoo()
    pairs = np.stack([shared.row, shared.col], axis=1)[shared.row != shared.col]
    pairs = pairs[np.random.default_rng(seed).permutation(len(pairs))]
    truths = [
        (pair, np.setdiff1d(positives[pair[0]].indices, positives[pair[1]].indices)) for pair in pairs[: 3 * PAIRS]
    ]
    truths = [(pair, truth) for pair, truth in truths if len(truth)][:PAIRS]
    texts = test.texts.to_pylist()
    ids, _ = retriever.search([subtract(texts[first], texts[second]) for (first, second), _ in truths], 100)
    total = 0.0
    for row, (_, truth) in zip(ids, truths, strict=True):
        hits = np.isin(row, truth)
        precisions = np.cumsum(hits) / np.arange(1, len(row) + 1)
        total += float((precisions * hits).sum()) / min(len(row), len(truth))
    return [Measurement("passages", f"difference, {name}", "MAP@100", 100 * total / len(truths), "%", seed)]


def _bags(data: Dataset, seed: int, name: str, out: Path) -> list[Measurement]:
    """P@1 and others of single test texts, of a run trained on the training queries joined in fours."""
    split = data.split("train")
    kept = uses_of_queries(len(split), HELD_OUT, 0.0, 0).training
    rows = np.random.default_rng(seed).permutation(kept)
    rows = rows[: len(rows) // BAG * BAG].reshape(-1, BAG)
    config: dict[str, object] = {"seed": seed}
    if name == "single texts":
        rows = rows.reshape(-1, 1)
    elif name == "bags":
        config["data"] = {"bags": {"separator": "\n"}}
    elif name == "bags, one vector":
        config["batch_size"] = TrainConfig().batch_size // BAG
    texts = split.texts.to_pylist()
    joined, positives = ["\n".join(texts[row] for row in line) for line in rows], _joined(split.positives, rows)
    lists = [row.tolist() for row in np.split(positives.indices, positives.indptr[1:-1])]
    if name == "bags, every label for every text":
        joined, lists = [texts[row] for row in rows.ravel()], [listed for listed in lists for _ in range(BAG)]
    labels = data.labels
    bags = Dataset.from_lists(
        "bags", labels.texts.to_pylist(), {"train": (joined, lists)}, label_uids=labels.uids.to_pylist()
    )
    train(bags, TrainConfig.from_mapping(config), out, overwrite=True)
    values = evaluate(Retriever.load(out), data).values
    return [
        Measurement("passages", name, metric, values[metric], "%", seed)
        for metric in ("P@1", "P@5", "nDCG@5", "PSP@5", "R@10", "R@100")
    ]
