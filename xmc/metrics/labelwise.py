"""Metrics by label rather than by query: macro averages, and a breakdown from rare to frequent labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.metrics.ranked import RankedPairs

__all__ = ["Decile", "decile_breakdown", "macro_averages"]

Int64s = npt.NDArray[np.int64]
DECILES = 10


@dataclass(frozen=True)
class Decile:
    """Labels of one range of training frequency.

    The labels seen in training, sorted by training queries (ties by label), are cut into ten ranges that each hold a
    tenth of the training pairs, after the quantile plots of DECAF (WSDM 2021) and ECLARE (WWW 2021): the rare labels of
    the first range are many, the frequent ones of the last few.

    decile: 1 for the rarest labels to 10 for the most frequent; 0 for labels without any training query.
    labels: number of labels. training_counts: lowest and highest number of training queries among them.
    positives: test pairs of these labels, after filtering.
    values: percent. "P@k" and "PSP@k" are the part of that metric that these labels contribute (the deciles add up to it);
        "R@k" is the share of these pairs found in the first k places.
    """

    decile: int
    labels: int
    training_counts: tuple[int, int]
    positives: int
    values: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "decile": self.decile,
            "labels": self.labels,
            "training_counts": list(self.training_counts),
            "positives": self.positives,
            **self.values,
        }


def macro_averages(
    ranks: npt.NDArray[np.int32], truth_labels: Int64s, ranking: Int64s, labels: int, ks: Sequence[int]
) -> dict[str, float]:
    """Precision, recall and F1 of each label at k, averaged over the labels that have a positive, in percent.

    With t, p and q the queries where the label is found, predicted in the first k places, and positive:
    precision t / p (0 where p = 0), recall t / q, F1 2t / (p + q). An average over all L labels, with 0 for those
    without a positive, is this one times (labels with a positive) / L.
    """
    positives = np.bincount(truth_labels, minlength=labels)
    tested = np.flatnonzero(positives)
    values = {}
    for k in ks:
        first = ranking[:, :k]
        predicted = np.bincount(first[first >= 0], minlength=labels)[tested]
        hits = np.bincount(truth_labels[ranks < k], minlength=labels)[tested]
        values[f"P@{k}"] = _mean_percent(hits / np.maximum(predicted, 1))
        values[f"R@{k}"] = _mean_percent(hits / positives[tested])
        values[f"F1@{k}"] = _mean_percent(2 * hits / (predicted + positives[tested]))
    return values


def decile_breakdown(
    pairs: RankedPairs, training_counts: npt.NDArray[np.integer], ks: Sequence[int], recall_ks: Sequence[int]
) -> tuple[Decile, ...]:
    """One `Decile` for each range of training frequency that holds labels, rarest first. `pairs` have weights."""
    assert pairs.weights is not None, "there are no deciles without training counts"
    queries, weights = len(pairs), pairs.weights
    decile_of_label = _deciles(np.asarray(training_counts, np.int64))
    decile_of_pair = decile_of_label[pairs.positives]
    positives = np.bincount(decile_of_pair, minlength=DECILES + 1)
    values: list[dict[str, float]] = [{} for _ in range(DECILES + 1)]
    for k in sorted({*ks, *recall_ks}):
        inside = pairs.ranks < k
        hits = np.bincount(decile_of_pair[inside], minlength=DECILES + 1)
        weighed = np.bincount(decile_of_pair[inside], weights[inside], minlength=DECILES + 1)
        best = float(100 * np.sum(weights[pairs.best_ranks < k]) / (queries * k)) if k in ks else 0.0
        for decile in range(DECILES + 1):
            if k in ks:
                values[decile][f"P@{k}"] = float(100 * hits[decile] / (queries * k))
                gain = 100 * weighed[decile] / (queries * k)
                values[decile][f"PSP@{k}"] = float(100 * gain / best) if best else 0.0
            if k in recall_ks:
                values[decile][f"R@{k}"] = float(100 * hits[decile] / max(positives[decile], 1))
    breakdown = []
    for decile in range(DECILES + 1):
        counts = training_counts[decile_of_label == decile]
        if len(counts):
            bounds = (int(counts.min()), int(counts.max()))
            breakdown.append(Decile(decile, len(counts), bounds, int(positives[decile]), values[decile]))
    return tuple(breakdown)


def _deciles(counts: Int64s) -> Int64s:
    """The decile of each label: where the middle of its training pairs falls when all are lined up, rarest first."""
    order = np.argsort(counts, kind="stable")
    ends = np.cumsum(counts[order])
    middles = 2 * ends - counts[order]
    deciles = np.zeros(len(counts), np.int64)
    if len(counts) and ends[-1]:
        deciles[order] = np.where(counts[order] > 0, 1 + DECILES * middles // (2 * ends[-1]), 0)
    return deciles


def _mean_percent(values: npt.NDArray[np.float64]) -> float:
    return float(100 * values.mean()) if len(values) else 0.0
