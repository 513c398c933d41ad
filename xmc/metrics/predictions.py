"""P, nDCG, PSP, PSnDCG and R at k, as the Extreme Classification Repository defines them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from xmc.errors import InputError
from xmc.metrics.labelwise import Decile, decile_breakdown, macro_averages
from xmc.metrics.propensity import propensities
from xmc.metrics.ranking import UNKNOWN_LABEL, best_ranks, positive_ranks
from xmc.metrics.truth import filter_rows, positives_of, without_filtered

__all__ = ["Metrics", "evaluate_predictions"]

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]
MOST_LABELS = 2**32 - 2


@dataclass(frozen=True)
class Metrics:
    """What `evaluate_predictions` found; all metrics in percent.

    values: "P@1", "nDCG@5", "PSP@1", "PSnDCG@3", "R@100" and so on, averages over all queries.
    macro: "P@k", "R@k" and "F1@k", averages over the labels that have a positive.
    deciles: from rare to frequent labels; empty without training counts.
    queries: number of queries. queries_without_positives: number of queries without a positive after filtering; they score 0.
    """

    values: dict[str, float]
    macro: dict[str, float]
    deciles: tuple[Decile, ...]
    queries: int
    queries_without_positives: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "values": dict(self.values),
            "macro": dict(self.macro),
            "deciles": [decile.to_dict() for decile in self.deciles],
            "queries": self.queries,
            "queries_without_positives": self.queries_without_positives,
        }


def evaluate_predictions(
    labels: npt.NDArray[np.integer],
    scores: npt.NDArray[np.floating],
    truth: csr_matrix,
    *,
    training_counts: npt.NDArray[np.integer] | None = None,
    training_queries: int | None = None,
    propensity: tuple[float, float] = (0.55, 1.5),
    filter: npt.NDArray[np.integer] | None = None,
    ks: Sequence[int] = (1, 3, 5),
    recall_ks: Sequence[int] = (10, 100),
) -> Metrics:
    """Compare ranked predictions with the truth.

    With r_1, r_2, ... the ranking of a query, P its positives, y_i = 1 if r_i ∈ P else 0, w_l = 1 / p_l the inverse
    propensity, d_i = 1 / log2(i + 1), and means over all queries:

        P@k      = mean (1/k) Σ_{i≤k} y_i
        nDCG@k   = mean Σ_{i≤k} d_i y_i / Z,   Z = Σ_{i ≤ min(k, |P|)} d_i
        R@k      = mean (1/|P|) Σ_{i≤k} y_i
        PSP@k    = mean (1/k) Σ_{i≤k} w_{r_i} y_i  over the same for the best ranking (P by falling w)
        PSnDCG@k = mean Σ_{i≤k} d_i w_{r_i} y_i / Z  over the same for the best ranking

    A query without positives scores 0 and counts. PSP and PSnDCG are ratios of means, not means of ratios, as in the
    Extreme Classification Repository's scripts. A ranking is ordered by (-score, label), so ties do not depend on the
    order of the predictions; a label that is predicted twice counts once, at its best score. A ranking with fewer than
    k labels has y_i = 0 for the rest.

    Parameters
    ----------
    labels: integers [n, columns]. -1 (NO_PREDICTION) is left out; -2 (UNKNOWN_LABEL) is wrong and holds its rank.
    scores: float32 [n, columns], higher is better; other floats are rounded to float32. -inf and inf are allowed.
    truth: sparse [n, L]; a positive is an entry greater than 0.
    training_counts: integers [L], training queries of each label; with `training_queries`, the number of all training
        queries, they give PSP, PSnDCG and the deciles, which are left out otherwise.
    propensity: A and B of Jain et al. 2016, see `propensities` and `propensity_parameters`.
    filter: integers [m, 2], pairs (query row, label) to remove from the predictions and from the truth. Predict as many
        labels more than max(recall_ks) as a query has filtered labels.
    ks, recall_ks: the k of R and of all others.

    Raises InputError for shapes that do not fit together, rows or labels out of range, and scores that are not numbers.

    >>> truth = csr_matrix([[1, 0, 1], [0, 1, 0]])
    >>> labels, scores = np.array([[0, 1], [2, 1]]), np.array([[0.9, 0.1], [0.5, 0.5]])
    >>> evaluate_predictions(labels, scores, truth, ks=[1], recall_ks=[2]).values
    {'P@1': 100.0, 'nDCG@1': 100.0, 'R@2': 75.0}
    """
    ks, recall_ks = _check_ks(ks), _check_ks(recall_ks)
    labels, scores = _check_predictions(labels, scores, truth)
    if (training_counts is None) != (training_queries is None):
        raise InputError("training_counts and training_queries belong together; give both or neither.")
    queries, label_count = truth.shape
    truth_indptr, truth_labels = positives_of(truth)
    filter_indptr, filter_labels = filter_rows(filter, queries, label_count)
    truth_indptr, truth_labels = without_filtered(truth_indptr, truth_labels, filter_indptr, filter_labels, label_count)
    ranks, ranking = positive_ranks(
        labels, scores, truth_indptr, truth_labels, filter_indptr, filter_labels, max(*ks, *recall_ks), max(ks)
    )

    values = _precision_and_ndcg("", ranks, truth_indptr, np.ones(len(ranks)), ks)
    deciles: tuple[Decile, ...] = ()
    if training_counts is not None and training_queries is not None:
        if len(training_counts) != label_count:
            raise InputError(
                f"There are {len(training_counts)} training counts for the {label_count} labels of the truth."
            )
        weights = 1 / propensities(training_counts, training_queries, *propensity)[truth_labels]
        achieved = _precision_and_ndcg("PS", ranks, truth_indptr, weights, ks)
        best = _precision_and_ndcg("PS", best_ranks(truth_indptr, weights), truth_indptr, weights, ks)
        values |= {name: 100 * achieved[name] / best[name] if best[name] else 0.0 for name in achieved}
        deciles = decile_breakdown(
            ranks,
            truth_labels,
            np.asarray(training_counts),
            queries,
            ks,
            recall_ks,
            weights,
            {k: best[f"PSP@{k}"] for k in ks},
        )
    positives = np.diff(truth_indptr)
    for k in recall_ks:
        hits = ranks < k
        values[f"R@{k}"] = float(100 * np.sum(1 / np.repeat(positives, positives)[hits]) / queries)
    macro = macro_averages(ranks, truth_labels, ranking, label_count, ks)
    return Metrics(values, macro, deciles, queries, int(np.sum(positives == 0)))


def _precision_and_ndcg(
    prefix: str, ranks: npt.NDArray[np.integer], indptr: Int64s, weights: Float64s, ks: Sequence[int]
) -> dict[str, float]:
    """P@k and nDCG@k in percent where a positive found counts by its weight; ranks and weights by pair, [nnz]."""
    queries = len(indptr) - 1
    hits = np.flatnonzero(ranks < max(ks))
    discounts = 1 / np.log2(np.arange(max(ks)) + 2)
    normalisers = np.concatenate([[1.0], np.cumsum(discounts)])
    positives = np.diff(indptr)
    rank, weight, row_positives = ranks[hits], weights[hits], np.repeat(positives, positives)[hits]
    precision, ndcg = {}, {}
    for k in ks:
        inside = rank < k
        precision[f"{prefix}P@{k}"] = float(100 * np.sum(weight[inside]) / (queries * k))
        gains = weight[inside] * discounts[rank[inside]] / normalisers[np.minimum(k, row_positives[inside])]
        ndcg[f"{prefix}nDCG@{k}"] = float(100 * np.sum(gains) / queries)
    return precision | ndcg


def _check_ks(ks: Sequence[int]) -> tuple[int, ...]:
    if not ks or any(k < 1 for k in ks):
        raise InputError(f"The k of a metric are one or more integers from 1, not {list(ks)}.")
    return tuple(sorted(set(ks)))


def _check_predictions(
    labels: npt.NDArray[np.integer], scores: npt.NDArray[np.floating], truth: csr_matrix
) -> tuple[Int64s, npt.NDArray[np.float32]]:
    """Predictions as contiguous int64 and float32; InputError for what cannot be evaluated."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 2 or labels.shape != scores.shape:
        raise InputError(
            f"Labels {list(labels.shape)} and scores {list(scores.shape)} must have the same shape [n, columns]."
        )
    if not np.issubdtype(labels.dtype, np.integer) or not np.issubdtype(scores.dtype, np.floating):
        raise InputError(f"Labels must be integers and scores floats, not {labels.dtype} and {scores.dtype}.")
    if len(labels) != truth.shape[0] or not len(labels):
        raise InputError(
            f"There are predictions for {len(labels)} queries and a truth for {truth.shape[0]}; "
            f"both must have the same queries, at least one."
        )
    label_count = truth.shape[1]
    if label_count > MOST_LABELS:
        raise InputError(f"The truth has {label_count} labels; at most {MOST_LABELS} are supported.")
    if labels.size and not UNKNOWN_LABEL <= labels.min() <= labels.max() < label_count:
        row, column = np.argwhere((labels < UNKNOWN_LABEL) | (labels >= label_count))[0]
        raise InputError(
            f"Query {row} has the predicted label {labels[row, column]}, outside of the {label_count} labels of the "
            f"truth; -1 means no prediction, -2 a label that the truth does not have."
        )
    if labels.size and np.isnan(scores.min()) and (bad := np.argwhere(np.isnan(scores) & (labels != -1))).size:
        row, column = bad[0]
        raise InputError(f"Query {row} has the score NaN for the label {labels[row, column]}; rank by finite scores.")
    return np.ascontiguousarray(labels, np.int64), np.ascontiguousarray(scores, np.float32)
