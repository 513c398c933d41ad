"""Metrics of ranked predictions; P, nDCG, PSP, PSnDCG and R at k are as the Extreme Classification Repository defines them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from xmc.errors import InputError
from xmc.metrics.definitions import KS, RECALL_KS
from xmc.metrics.labelwise import Decile, decile_breakdown, macro_averages
from xmc.metrics.measures import Measure, check_ks, usual_measures
from xmc.metrics.propensity import propensities
from xmc.metrics.ranked import RankedPairs
from xmc.metrics.ranking import UNKNOWN_LABEL, positive_ranks
from xmc.metrics.truth import filter_rows, positives_of, without_filtered
from xmc.metrics.values import QueryValues

__all__ = ["Metrics", "evaluate_predictions"]

Int64s = npt.NDArray[np.int64]
MOST_LABELS = 2**32 - 2


@dataclass(frozen=True)
class Metrics:
    """What `evaluate_predictions` found; all metrics in percent.

    values: "P@1", "nDCG@5", "PSP@1", "PSnDCG@3", "R@100" and so on, averages over all queries.
    macro: "P@k", "R@k" and "F1@k", averages over the labels that have a positive.
    deciles: from rare to frequent labels; empty without training counts.
    queries: number of queries. queries_without_positives: number of queries without a positive after filtering; they score 0.
    measures: what was computed, in the order of `values`. pairs: what it was computed from.
    """

    values: dict[str, float]
    macro: dict[str, float]
    deciles: tuple[Decile, ...]
    queries: int
    queries_without_positives: int
    measures: tuple[Measure, ...] = field(compare=False, repr=False)
    pairs: RankedPairs = field(compare=False, repr=False)

    def __repr__(self) -> str:
        """Number of queries, and the values in percent."""
        values = ", ".join(f"{name} {value:.2f}" for name, value in self.values.items())
        return f"<{type(self).__name__}: {self.queries:,} queries; {values}>"

    def __getitem__(self, name: str) -> float:
        """A value by its name in upper or lower case, such as "P@1" or "ndcg@5"; InputError for one that was not computed."""
        for title, value in self.values.items():
            if title.lower() == name.lower():
                return value
        raise InputError(f"There is no {name!r} among the metrics; there are {', '.join(self.values)}.")

    def query_values(self) -> dict[str, QueryValues]:
        """What each query adds to each of `values`."""
        return {measure.title: measure.metric.at(self.pairs, measure.k) for measure in self.measures}

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
    ks: Sequence[int] = KS,
    recall_ks: Sequence[int] = RECALL_KS,
    measures: Sequence[Measure] | None = None,
) -> Metrics:
    """Compare ranked predictions with the truth.

    With r_1, r_2, ... the ranking of a query, P its positives, y_i = 1 if r_i ∈ P else 0, w_l = 1 / p_l the inverse
    propensity, d_i = 1 / log2(i + 1), and means over all queries:

        P@k      = mean (1/k) Σ_{i≤k} y_i
        nDCG@k   = mean Σ_{i≤k} d_i y_i / Z,   Z = Σ_{i ≤ min(k, |P|)} d_i
        R@k      = mean (1/|P|) Σ_{i≤k} y_i
        PSP@k    = mean (1/k) Σ_{i≤k} w_{r_i} y_i  over the same for the best ranking (P by falling w)
        PSnDCG@k = mean Σ_{i≤k} d_i w_{r_i} y_i / Z  over the same for the best ranking

    and, where `measures` asks for them, with h_i = Σ_{j≤i} y_j:

        MRR@k    = mean 1 / i of the smallest i ≤ k with y_i = 1, 0 where there is none
        MAP@k    = mean (1/|P|) Σ_{i≤k} y_i h_i / i, as trec_eval's map_cut
        F1@k     = mean 2 h_k / (k + |P|), the harmonic mean of a query's precision and recall
        RPrec    = mean h_m / m with m = |P|, R-precision
        GAP@k    = Σ_i y_i h_i / i over Σ |P|, where r is one ranking by score of the first k predictions of all queries; with
                   k = 20 this is the global average precision of YouTube-8M (Abu-El-Haija et al. 2016)

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
        labels more than the largest k as a query has filtered labels.
    ks, recall_ks: the k of P, nDCG, PSP, PSnDCG, and of R, where `measures` is None; of macro averages and deciles, always.
    measures: what to compute, see `measures_of`; those that need training counts are left out without them, and refused where
        nothing else is asked for.

    Raises InputError for shapes that do not fit together, rows or labels out of range, and scores that are not numbers.

    >>> truth = csr_matrix([[1, 0, 1], [0, 1, 0]])
    >>> labels, scores = np.array([[0, 1], [2, 1]]), np.array([[0.9, 0.1], [0.5, 0.5]])
    >>> evaluate_predictions(labels, scores, truth, ks=[1], recall_ks=[2]).values
    {'P@1': 100.0, 'nDCG@1': 100.0, 'R@2': 75.0}
    """
    ks, recall_ks = check_ks(ks), check_ks(recall_ks)
    labels, scores = _check_predictions(labels, scores, truth)
    wanted = usual_measures(ks, recall_ks) if measures is None else tuple(measures)
    if (training_counts is None) != (training_queries is None):
        raise InputError("training_counts and training_queries belong together; give both or neither.")
    if training_counts is None:
        asked, wanted = wanted, tuple(measure for measure in wanted if not measure.metric.weighted)
        if not wanted:
            raise InputError(
                f"{', '.join(measure.title for measure in asked)} need training queries, by which labels are weighed, and "
                f"there are none; ask for other metrics, or give training_counts."
            )
    label_weights = None
    if training_counts is not None and training_queries is not None:
        if len(training_counts) != truth.shape[1]:
            raise InputError(
                f"There are {len(training_counts)} training counts for the {truth.shape[1]} labels of the truth."
            )
        label_weights = 1 / propensities(training_counts, training_queries, *propensity)
    pairs = _ranked(labels, scores, truth, filter, label_weights, wanted, max(*ks, *recall_ks), max(ks))
    values = {measure.title: measure.metric.at(pairs, measure.k).value for measure in wanted}
    deciles: tuple[Decile, ...] = ()
    if training_counts is not None and pairs.weights is not None:
        deciles = decile_breakdown(pairs, np.asarray(training_counts), ks, recall_ks)
    macro = macro_averages(pairs.ranks, pairs.positives, pairs.labels, truth.shape[1], ks)
    without = int(np.sum(pairs.counts == 0))
    return Metrics(values, macro, deciles, len(pairs), without, wanted, pairs)


def _ranked(
    labels: Int64s,
    scores: npt.NDArray[np.float32],
    truth: csr_matrix,
    filter: npt.NDArray[np.integer] | None,
    label_weights: npt.NDArray[np.float64] | None,
    measures: Sequence[Measure],
    depth: int,
    top: int,
) -> RankedPairs:
    """Rank the positives as deep as the measures ask for, and at least to `depth`; keep at least `top` places."""
    queries, label_count = truth.shape
    filter_indptr, filter_labels = filter_rows(filter, queries, label_count)
    indptr, positives = without_filtered(*positives_of(truth), filter_indptr, filter_labels, label_count)
    most = int(np.diff(indptr).max(initial=0))
    depth = max([depth, *(measure.depth(most) for measure in measures)])
    top = max([top, *(measure.k for measure in measures if measure.metric.own_k)])
    ranks, ranking, ranked_scores = positive_ranks(
        labels, scores, indptr, positives, filter_indptr, filter_labels, depth, top
    )
    weights = None if label_weights is None else label_weights[positives]
    return RankedPairs(indptr, positives, ranks, weights, ranking, ranked_scores)


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
