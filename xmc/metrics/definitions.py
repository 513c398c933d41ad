"""The family of metrics by name: each is a function of ranked pairs and k that says what every query has and could have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmc.metrics.ranked import RankedPairs
from xmc.metrics.values import PooledValues, QueryValues
from xmc.registry import Registry

__all__ = ["KS", "METRICS", "RECALL_KS", "Metric"]

Float64s = npt.NDArray[np.float64]
KS = (1, 3, 5)
"""The k of a metric, where none is asked for."""
RECALL_KS = (10, 100)
"""The k of recall, where none is asked for."""


@dataclass(frozen=True)
class Metric:
    """A metric of rankings.

    title: what its values are called, before "@k". meaning: in a few words. at: its values from ranked pairs and k. ks: the k
    where none is asked for. usual: whether it is computed where no metric is asked for. weighted: whether it needs inverse
    propensities. own_k: whether its definition says its k, so that a k that is asked for all metrics is not for it.
    every_positive: whether it looks at as many places as a query has positives, and has no k.
    """

    title: str
    meaning: str
    at: Callable[[RankedPairs, int], QueryValues]
    ks: tuple[int, ...] = KS
    usual: bool = False
    weighted: bool = False
    own_k: bool = False
    every_positive: bool = False


def _found(pairs: RankedPairs, k: int, values: Float64s | None = None) -> Float64s:
    """The number of positives in the first k places, or the sum of their `values` [m], float64 [n]."""
    inside = pairs.ranks < k
    return np.bincount(pairs.rows[inside], None if values is None else values[inside], len(pairs)).astype(np.float64)


def _per_positive(pairs: RankedPairs) -> Float64s:
    return np.maximum(pairs.counts, 1).astype(np.float64)


def _precision(pairs: RankedPairs, k: int) -> QueryValues:
    return QueryValues.mean_of(_found(pairs, k) / k)


def _discounted(pairs: RankedPairs, k: int, ranks: npt.NDArray[np.int32], weights: Float64s | None) -> Float64s:
    """Σ d_i w of the positives in the first k places over Z, see `evaluate_predictions`, float64 [n]."""
    discounts = 1 / np.log2(np.arange(k) + 2)
    normalisers = np.concatenate([[1.0], np.cumsum(discounts)])[np.minimum(k, pairs.counts)]
    inside = np.flatnonzero(ranks < k)
    gains = discounts[ranks[inside]] * (1.0 if weights is None else weights[inside])
    return np.asarray(np.bincount(pairs.rows[inside], gains, len(pairs)) / normalisers, np.float64)


def _ndcg(pairs: RankedPairs, k: int) -> QueryValues:
    return QueryValues.mean_of(_discounted(pairs, k, pairs.ranks, None))


def _weights(pairs: RankedPairs) -> Float64s:
    assert pairs.weights is not None, "metrics that are weighted are asked for with weights alone"
    return pairs.weights


def _scored_precision(pairs: RankedPairs, k: int) -> QueryValues:
    weights = _weights(pairs)
    best = pairs.best_ranks < k
    return QueryValues(_found(pairs, k, weights) / k, np.bincount(pairs.rows[best], weights[best], len(pairs)) / k)


def _scored_ndcg(pairs: RankedPairs, k: int) -> QueryValues:
    weights = _weights(pairs)
    best = _discounted(pairs, k, pairs.best_ranks, weights)
    return QueryValues(_discounted(pairs, k, pairs.ranks, weights), best)


def _recall(pairs: RankedPairs, k: int) -> QueryValues:
    return QueryValues.mean_of(_found(pairs, k) / _per_positive(pairs))


def _reciprocal_rank(pairs: RankedPairs, k: int) -> QueryValues:
    first = np.full(len(pairs), k, np.int64)
    np.minimum.at(first, pairs.rows, pairs.ranks)
    return QueryValues.mean_of(np.where(first < k, 1 / (first + 1.0), 0.0))


def _average_precision(pairs: RankedPairs, k: int) -> QueryValues:
    inside = np.flatnonzero(pairs.ranks < k)
    inside = inside[np.lexsort((pairs.ranks[inside], pairs.rows[inside]))]
    rows = pairs.rows[inside]
    hits_before = np.arange(len(rows)) - np.searchsorted(rows, rows)
    precision = (hits_before + 1) / (pairs.ranks[inside] + 1.0)
    return QueryValues.mean_of(np.bincount(rows, precision, len(pairs)) / _per_positive(pairs))


def _f1(pairs: RankedPairs, k: int) -> QueryValues:
    return QueryValues.mean_of(2 * _found(pairs, k) / (k + pairs.counts))


def _r_precision(pairs: RankedPairs, k: int) -> QueryValues:
    inside = pairs.ranks < pairs.counts[pairs.rows]
    return QueryValues.mean_of(np.bincount(pairs.rows[inside], minlength=len(pairs)) / _per_positive(pairs))


def _global_average_precision(pairs: RankedPairs, k: int) -> QueryValues:
    return PooledValues.from_predictions(*pairs.first_places(k), pairs.counts)


METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "p": Metric("P", "precision", _precision, usual=True),
        "ndcg": Metric("nDCG", "normalised discounted cumulative gain", _ndcg, usual=True),
        "psp": Metric("PSP", "propensity-scored precision", _scored_precision, usual=True, weighted=True),
        "psndcg": Metric("PSnDCG", "propensity-scored nDCG", _scored_ndcg, usual=True, weighted=True),
        "recall": Metric("R", "recall", _recall, RECALL_KS, usual=True),
        "mrr": Metric("MRR", "mean reciprocal rank of the first hit", _reciprocal_rank, (10,)),
        "map": Metric("MAP", "mean average precision", _average_precision, (100,)),
        "f1": Metric("F1", "harmonic mean of precision and recall", _f1),
        "rprec": Metric("RPrec", "precision at the number of positives", _r_precision, (1,), every_positive=True),
        "gap": Metric("GAP", "global average precision", _global_average_precision, (20,), own_k=True),
    },
)
"""All metrics; `METRICS.register` adds one. Their definitions are in `evaluate_predictions`."""
