"""Table filters: searches that may return some labels only, from half of a million down to none.

Allowed labels are drawn at random, or are those nearest to a random direction: then most queries lie far from all of them.
Answers are compared with those of numpy over the allowed labels.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from measurements import Measurement, from_samples
from rich.console import Console
from titles import Vectors, static_vectors

from xmc.indexes.designs import design_of
from xmc.indexes.engines.faiss import FaissDesign
from xmc.indexes.label_index import LabelIndex

__all__ = ["EQUAL", "K", "best_scores", "index_of", "measure", "quantile", "run", "true_scores"]

Embeddings = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

K = 10
EQUAL = 1e-5
"""Scores of unit vectors that differ by less are equal."""
CHUNK = 16_384
"""Labels scored by numpy at a time."""
DESIGNS: dict[str, dict[str, Any]] = {
    "exact": {},
    "IVF8192,PQ128x4fs,Refine(SQ8)": {"parameters": {"nprobe": 235, "k_factor_rf": 8}, "rescore": 2},
    "HNSW32,SQ8": {"parameters": {"efSearch": 512}},
}
"""Designs, and the settings with which they find about 95% of the ten best labels where there is no filter."""
console = Console()


@dataclass(frozen=True)
class Sizes:
    """Queries asked together, and those asked one by one, for so many seconds at most."""

    queries: int = 1_000
    single: int = 300
    single_seconds: float = 20.0
    rounds: int = 3


SIZES = Sizes()


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure each design under each filter, on all titles by the static encoder."""
    vectors = static_vectors()
    for design, options in DESIGNS.items():
        if not methods or design.startswith(tuple(methods)):
            console.print(f"filters: {design}", highlight=False)
            yield from measure(vectors, design, options, SIZES, seed)


def measure(
    vectors: Vectors, design: str, options: dict[str, Any], sizes: Sizes, seed: int
) -> Iterator[list[Measurement]]:
    """Build a design, and measure it under each filter."""
    labels, queries = np.array(vectors.labels), vectors.queries[: sizes.queries]
    index = index_of(design, labels.shape[1], options)
    start = time.perf_counter()
    index.build(labels, np.arange(len(labels)))
    yield [Measurement("filters", design, "build", time.perf_counter() - start, "seconds", seed)]
    for name, mask in _filters(labels, seed):
        method = f"{design}, {name}"
        rows = [*_answers(index, labels, queries, mask), *_latency(index, queries, mask, sizes)]
        speeds = []
        for _ in range(sizes.rounds):
            start = time.perf_counter()
            index.search(queries, K, include=mask)
            speeds.append(len(queries) / (time.perf_counter() - start))
        yield [
            *(Measurement("filters", method, *row, seed) for row in rows),
            from_samples("filters", method, "batch", speeds, "queries/second", seed),
        ]


def index_of(design: str, dimension: int, options: dict[str, Any]) -> LabelIndex:
    """An empty index of a design on the processor, with the parameters of FaissDesign, and rescore."""
    if not options:
        return LabelIndex(design_of(design, dimension))
    return LabelIndex(FaissDesign(dimension, design, options.get("parameters")), options.get("rescore", 0))


def best_scores(queries: Embeddings, labels: Embeddings, allowed: Mask, k: int) -> Embeddings:
    """The k highest inner products of each query with allowed labels, best first, [n, k], by numpy; -inf where fewer."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    for first in range(0, len(labels), CHUNK):
        part = labels[first : first + CHUNK][allowed[first : first + CHUNK]]
        both = np.concatenate([best, queries @ part.T], axis=1)
        best = np.partition(both, -k, axis=1)[:, -k:]
    return -np.sort(-best, axis=1)


def true_scores(queries: Embeddings, labels: Embeddings, rows: Rows) -> Embeddings:
    """Inner products of each query [n, D] with its own labels [n, m]; -inf for the row -1."""
    scores = np.einsum("nd,nmd->nm", queries, labels[np.maximum(rows, 0)])
    return np.where(rows >= 0, scores, -np.inf).astype(np.float32)


def quantile(seconds: Sequence[float], share: float) -> float:
    """In milliseconds."""
    return float(np.quantile(seconds, share)) * 1e3


def _filters(labels: Embeddings, seed: int) -> Iterator[tuple[str, Mask | None]]:
    """A mask of allowed labels by name. More than 100,000 are left to the engine, of which 12% is the hard case."""
    choose = np.random.default_rng(seed)
    yield "no filter", None
    for name, share in (("50%", 0.5), ("12%", 0.12), ("5%", 0.05), ("0.1%", 0.001)):
        yield f"{name} allowed", _chosen(len(labels), choose.permutation(len(labels))[: round(share * len(labels))])
    nearness = labels @ choose.normal(size=labels.shape[1]).astype(np.float32)
    for name, share in (("12%", 0.12), ("5%", 0.05)):
        nearest = np.argsort(-nearness)[: round(share * len(labels))]
        yield f"{name} nearest to a direction allowed", _chosen(len(labels), nearest)
    yield "one label allowed", _chosen(len(labels), choose.integers(0, len(labels), 1))
    yield "no label allowed", _chosen(len(labels), np.zeros(0, np.int64))


def _chosen(count: int, rows: Rows) -> Mask:
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def _answers(
    index: LabelIndex, labels: Embeddings, queries: Embeddings, mask: Mask | None
) -> Iterable[tuple[str, float, str]]:
    """Recall, and what must not be: results that the filter forbids, or that come twice, or are missing."""
    allowed = np.ones(len(labels), bool) if mask is None else mask
    count = int(allowed.sum())
    most = min(K, count)
    rows = np.asarray(index.search(queries, K, include=mask)[0], np.int64)
    returned = rows >= 0
    if count:
        best = best_scores(queries, labels, allowed, most)
        right = returned & (true_scores(queries, labels, rows) >= best[:, -1:] - EQUAL)
        yield f"recall@{K}", 100 * float(right.sum()) / (len(queries) * most), "percent"
    distinct = sum(len(set(row[row >= 0].tolist())) for row in rows)
    yield "allowed", count, "labels"
    yield "results of a query, at most", float(returned.sum(axis=1).max()), "labels"
    yield "missing results", float(len(queries) * most - returned.sum()), "labels"
    yield "wrong results", float((~allowed[rows[returned]]).sum() + returned.sum() - distinct), "labels"


def _latency(
    index: LabelIndex, queries: Embeddings, mask: Mask | None, sizes: Sizes
) -> Iterable[tuple[str, float, str]]:
    seconds: list[float] = []
    for query in queries[: sizes.single]:
        if sum(seconds) > sizes.single_seconds:
            break
        start = time.perf_counter()
        index.search(query[None], K, include=mask)
        seconds.append(time.perf_counter() - start)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        yield f"{name} of one query", quantile(seconds, share), "ms"
