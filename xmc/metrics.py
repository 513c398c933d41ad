"""Ranking metrics of extreme classification: P, nDCG, PSP, PSnDCG and R at k, as the XML Repository defines them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from xmc.errors import InputError

__all__ = ["Metrics", "evaluate_predictions", "propensities", "propensity_parameters"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
_FAMILIES = {"wiki": (0.5, 0.4), "amazon": (0.6, 2.6)}
_DEFAULT_FAMILY = (0.55, 1.5)


@dataclass(frozen=True)
class Metrics:
    """Results in percent.

    values: by name, "P@1", "nDCG@5", "PSP@5", "PSnDCG@5", "R@100"; PSP and PSnDCG only where propensities are known.
    macro: "macro-P@k", "macro-R@k", "macro-F1@k": the mean over the labels of each label's own precision, recall and F1
        among the top k, over labels with a positive query, for the largest k of `ks`.
    deciles: labels in ten groups of equal number by training frequency, rarest first (only where that is known): for each
        the range of frequencies, the labels, the positive pairs, and the share of these found, as recall at each k.
    queries_without_positives: how many queries have none after filtering; they count as 0 in every mean.
    """

    values: dict[str, float]
    macro: dict[str, float]
    deciles: list[dict[str, float]]
    queries: int
    queries_without_positives: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "values": self.values,
            "macro": self.macro,
            "deciles": self.deciles,
            "queries_without_positives": self.queries_without_positives,
        }


def propensity_parameters(dataset_name: str) -> tuple[float, float]:
    """A and B of the propensity model for a data set's family: Wikipedia (0.5, 0.4), Amazon (0.6, 2.6), else (0.55, 1.5)."""
    name = dataset_name.lower()
    return next((values for family, values in _FAMILIES.items() if family in name), _DEFAULT_FAMILY)


def propensities(counts: npt.NDArray[Any], queries: int, a: float = 0.55, b: float = 1.5) -> Floats:
    """p_l = 1 / (1 + C·exp(-A·log(N_l + B))), C = (log N - 1)·(B + 1)^A: how likely a true label is to be observed.

    counts: [L] training queries of each label; queries: N. Returns float64 [L] in (0, 1].
    Source: Jain, Prabhu and Varma, Extreme Multi-label Loss Functions, KDD 2016, eq. 2.
    """
    scale = (np.log(queries) - 1) * (b + 1) ** a
    return np.asarray(1.0 / (1.0 + scale * np.exp(-a * np.log(np.asarray(counts, np.float64) + b))))


def evaluate_predictions(
    labels: npt.NDArray[np.integer],
    scores: npt.NDArray[np.floating],
    truth: csr_matrix,
    *,
    training_counts: npt.NDArray[np.integer] | None = None,
    training_queries: int | None = None,
    propensity: tuple[float, float] = _DEFAULT_FAMILY,
    filter: npt.NDArray[np.integer] | None = None,
    ks: Sequence[int] = (1, 3, 5),
    recall_ks: Sequence[int] = (10, 100),
) -> Metrics:
    """Evaluate ranked predictions.

    Parameters
    ----------
    labels: label rows [n, K], -1 for none. scores: [n, K]. A row is ranked by score, ties by the lower label row; a label
        given twice counts once, at its better place.
    truth: CSR [n, L], an entry greater than 0 is a positive.
    training_counts [L], training_queries: for propensities and deciles; without them these are left out.
    propensity: A and B, see `propensities`.
    filter: pairs (query, label) [m, 2] removed from predictions and truth.
    ks, recall_ks: cut-offs of P, nDCG, PSP, PSnDCG, and of R.

    Definitions, with n_i positives of query i: P@k = hits / k; R@k = hits / n_i; nDCG@k = Σ hit_r / log2(r + 1) over the same
    of min(k, n_i) hits; PSP@k and PSnDCG@k weight a hit by 1/p_l and are divided, after the mean over queries, by the mean
    of the best achievable. The mean is over all queries.

    Raises InputError for shapes that do not fit or label rows out of range.
    """
    labels, scores = np.asarray(labels, np.int64), np.asarray(scores, np.float32)
    queries, total = truth.shape
    if labels.shape != scores.shape or labels.ndim != 2 or len(labels) != queries:
        raise InputError(
            f"labels and scores must have one shape (queries, k), with {queries} queries as in truth, "
            f"but have the shapes {labels.shape} and {scores.shape}."
        )
    if labels.size and not -1 <= labels.min() <= labels.max() < total:
        raise InputError(
            f"Predicted label rows lie in [{labels.min()}, {labels.max()}], outside of the {total} labels."
        )
    if np.isnan(scores).any():
        raise InputError("scores hold NaN, which cannot be ranked.")
    truth = _canonical(truth)
    removed = _pairs(filter, queries, total)
    truth = _canonical(truth - truth.multiply(removed > 0)) if removed.nnz else truth
    deepest = max(*ks, *recall_ks)
    ranked = np.full((queries, deepest), -1, np.int64)
    _rank(labels, scores, removed.indptr, removed.indices, ranked)
    hits = np.zeros((queries, deepest), np.bool_)
    _match(ranked, truth.indptr, truth.indices, hits)

    positives = np.diff(truth.indptr)
    values: dict[str, float] = {}
    weights = None
    if training_counts is not None and training_queries is not None:
        weights = 1.0 / propensities(training_counts, training_queries, *propensity)
    for k in ks:
        values[f"P@{k}"] = _percent(hits[:, :k].sum(1) / k)
    for k in ks:
        discounts = 1.0 / np.log2(np.arange(2, k + 2))
        ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(positives, k)]
        gained = hits[:, :k] @ discounts
        values[f"nDCG@{k}"] = _percent(np.divide(gained, ideal, out=np.zeros(queries), where=ideal > 0))
    if weights is not None:
        values |= _propensity_scored(ranked, hits, truth, weights, ks)
    for k in recall_ks:
        found = hits[:, :k].sum(1)
        values[f"R@{k}"] = _percent(np.divide(found, positives, out=np.zeros(queries), where=positives > 0))
    return Metrics(
        values,
        _macro(ranked, hits, truth, max(ks)),
        _deciles(ranked, hits, truth, training_counts, [*ks, *recall_ks]) if training_counts is not None else [],
        queries,
        int((positives == 0).sum()),
    )


def _propensity_scored(
    ranked: Integers, hits: npt.NDArray[np.bool_], truth: csr_matrix, weights: Floats, ks: Sequence[int]
) -> dict[str, float]:
    deepest = max(ks)
    gains = np.where(hits[:, :deepest], weights[ranked[:, :deepest]], 0.0)
    best = np.zeros((truth.shape[0], deepest))
    _largest(truth.indptr, weights[truth.indices], best)
    discounts = 1.0 / np.log2(np.arange(2, deepest + 2))
    values = {}
    for name, factors in (("PSP", np.ones(deepest)), ("PSnDCG", discounts)):
        for k in ks:
            achievable = (best[:, :k] @ factors[:k]).sum()
            gained = (gains[:, :k] @ factors[:k]).sum()
            values[f"{name}@{k}"] = 100.0 * float(gained / achievable) if achievable > 0 else 0.0
    return values


def _macro(ranked: Integers, hits: npt.NDArray[np.bool_], truth: csr_matrix, k: int) -> dict[str, float]:
    total = truth.shape[1]
    top = ranked[:, :k]
    found = np.bincount(top[hits[:, :k]], minlength=total)
    predicted = np.bincount(top[top >= 0], minlength=total)
    actual = np.bincount(truth.indices, minlength=total)
    judged = actual > 0
    precision = found[judged] / np.maximum(predicted[judged], 1)
    recall = found[judged] / actual[judged]
    f1 = 2 * found[judged] / (predicted[judged] + actual[judged])
    return {f"macro-P@{k}": _percent(precision), f"macro-R@{k}": _percent(recall), f"macro-F1@{k}": _percent(f1)}


def _deciles(
    ranked: Integers, hits: npt.NDArray[np.bool_], truth: csr_matrix, counts: npt.NDArray[np.integer], ks: Sequence[int]
) -> list[dict[str, float]]:
    order = np.argsort(counts, kind="stable")
    group = np.empty(len(counts), np.int64)
    group[order] = np.arange(len(counts)) * 10 // max(len(counts), 1)
    pairs = np.bincount(group[truth.indices], minlength=10)
    rows: list[dict[str, float]] = []
    for decile in range(10):
        members = counts[group == decile]
        rows.append(
            {
                "decile": decile + 1,
                "lowest_frequency": int(members.min(initial=0)) if len(members) else 0,
                "highest_frequency": int(members.max(initial=0)) if len(members) else 0,
                "labels": len(members),
                "pairs": int(pairs[decile]),
            }
        )
    for k in ks:
        found = np.bincount(group[ranked[:, :k][hits[:, :k]]], minlength=10)
        for decile in range(10):
            rows[decile][f"R@{k}"] = 100.0 * float(found[decile]) / pairs[decile] if pairs[decile] else 0.0
    return rows


def _percent(values: npt.NDArray[Any]) -> float:
    return 100.0 * float(values.mean()) if len(values) else 0.0


def _canonical(matrix: Any) -> csr_matrix:
    result = csr_matrix(matrix)
    result.sum_duplicates()
    if (result.data <= 0).any():
        result = result.copy()
        result.data = np.where(result.data > 0, result.data, 0)
        result.eliminate_zeros()
    return result


def _pairs(filter: npt.NDArray[np.integer] | None, queries: int, labels: int) -> csr_matrix:
    pairs = np.zeros((0, 2), np.int64) if filter is None else np.asarray(filter, np.int64).reshape(-1, 2)
    if len(pairs) and not ((pairs >= 0).all() and pairs[:, 0].max() < queries and pairs[:, 1].max() < labels):
        raise InputError(f"A filter pair lies outside of the {queries} queries and {labels} labels.")
    matrix = csr_matrix((np.ones(len(pairs), np.float32), (pairs[:, 0], pairs[:, 1])), shape=(queries, labels))
    matrix.sum_duplicates()
    return matrix


@numba.njit(cache=True, inline="always")
def _contains(values: npt.NDArray[np.int32], start: int, stop: int, wanted: int) -> bool:
    """Whether sorted values[start:stop] hold `wanted`."""
    while start < stop:
        middle = (start + stop) // 2
        if values[middle] < wanted:
            start = middle + 1
        elif values[middle] > wanted:
            stop = middle
        else:
            return True
    return False


@numba.njit(cache=True, parallel=True)
def _rank(
    labels: Integers,
    scores: npt.NDArray[np.float32],
    indptr: npt.NDArray[np.int32],
    indices: npt.NDArray[np.int32],
    ranked: Integers,
) -> None:
    """Write each query's labels by falling score, ties by label, without the filtered pairs and without repeats."""
    for query in numba.prange(len(labels)):
        by_label = np.argsort(labels[query], kind="mergesort")
        order = by_label[np.argsort(-scores[query][by_label], kind="mergesort")]
        place = 0
        for position in order:
            label = labels[query, position]
            if label < 0 or _contains(indices, indptr[query], indptr[query + 1], label):
                continue
            repeated = False
            for earlier in range(place):
                if ranked[query, earlier] == label:
                    repeated = True
                    break
            if repeated:
                continue
            ranked[query, place] = label
            place += 1
            if place == ranked.shape[1]:
                break


@numba.njit(cache=True, parallel=True)
def _match(
    ranked: Integers, indptr: npt.NDArray[np.int32], indices: npt.NDArray[np.int32], hits: npt.NDArray[np.bool_]
) -> None:
    for query in numba.prange(len(ranked)):
        for place in range(ranked.shape[1]):
            label = ranked[query, place]
            if label >= 0:
                hits[query, place] = _contains(indices, indptr[query], indptr[query + 1], label)


@numba.njit(cache=True, parallel=True)
def _largest(indptr: npt.NDArray[np.int32], values: Floats, best: Floats) -> None:
    """The largest values of each row, falling."""
    for query in numba.prange(len(best)):
        row = np.sort(values[indptr[query] : indptr[query + 1]])
        for place in range(min(len(row), best.shape[1])):
            best[query, place] = row[len(row) - 1 - place]
