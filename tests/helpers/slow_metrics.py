"""Metrics as their definitions say, query by query, to compare with."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from xmc.metrics import (
    NO_PREDICTION,
)

__all__ = [
    "KS",
    "RECALL_KS",
    "matrix",
    "predict",
    "slow_global_average_precision",
    "slow_macro",
    "slow_metrics",
    "slow_ranking",
    "slow_ranking_metrics",
]


KS = (1, 3, 5)


RECALL_KS = (2, 10)


def matrix(rows: list[list[int]], labels: int) -> csr_matrix:
    """The truth in which row i has the positives rows[i]."""
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.array([label for row in rows for label in row], np.int32)
    return csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(len(rows), labels))


def predict(*rows: list[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Rankings, best first, as labels and falling scores."""
    width = max(map(len, rows))
    labels = np.array([row + [NO_PREDICTION] * (width - len(row)) for row in rows], np.int64)
    return labels, np.tile(np.linspace(1, 0.5, width, dtype=np.float32), (len(rows), 1))


def slow_ranking(labels: list[int], scores: list[float], filtered: set[int]) -> list[int]:
    """Labels by (-score, label), unknown ones last among equals, without -1, filtered ones and repeats."""
    pairs = [pair for pair in zip(labels, scores, strict=True) if pair[0] != -1]
    ranking: list[int] = []
    for label, _ in sorted(pairs, key=lambda pair: (-pair[1], math.inf if pair[0] == -2 else pair[0])):
        if label == -2 or (label not in ranking and label not in filtered):
            ranking.append(label)
    return ranking


def slow_metrics(
    rankings: list[list[int]], positives: list[set[int]], weights: npt.NDArray[np.float64] | None
) -> dict[str, float]:
    """All metrics from rankings and sets of positives, one query at a time."""

    def discounted(gains: list[float], row: set[int], k: int) -> float:
        if not row:
            return 0.0
        norm = sum(1 / math.log2(i + 1) for i in range(1, min(k, len(row)) + 1))
        return sum(gain / math.log2(i + 1) for i, gain in enumerate(gains[:k], 1)) / norm

    pairs = list(zip(rankings, positives, strict=True))
    values = {}
    for k in KS:
        values[f"P@{k}"] = np.mean([len(row.intersection(ranking[:k])) / k for ranking, row in pairs])
        values[f"nDCG@{k}"] = np.mean(
            [discounted([float(x in row) for x in ranking], row, k) for ranking, row in pairs]
        )
        if weights is not None:
            got = [[weights[x] if x in row else 0.0 for x in ranking] for ranking, row in pairs]
            best = [sorted((weights[x] for x in row), reverse=True) for row in positives]
            plain = [sum(sum(gains[:k]) for gains in side) for side in (got, best)]
            rows = [sum(discounted(g, row, k) for g, row in zip(s, positives, strict=True)) for s in (got, best)]
            values[f"PSP@{k}"] = plain[0] / plain[1] if plain[1] else 0.0
            values[f"PSnDCG@{k}"] = rows[0] / rows[1] if rows[1] else 0.0
    for k in RECALL_KS:
        values[f"R@{k}"] = np.mean([len(row.intersection(r[:k])) / len(row) if row else 0.0 for r, row in pairs])
    return {name: 100 * float(value) for name, value in values.items()}


def slow_macro(rankings: list[list[int]], positives: list[set[int]], labels: int) -> dict[str, float]:
    """Macro averages, one label at a time."""
    values: dict[str, float] = {}
    for k in KS:
        found: dict[str, list[float]] = {"P": [], "R": [], "F1": []}
        for label in range(labels):
            actual = [label in row for row in positives]
            predicted = [label in ranking[:k] for ranking in rankings]
            if any(actual):
                both = sum(a and p for a, p in zip(actual, predicted, strict=True))
                found["P"].append(both / sum(predicted) if any(predicted) else 0.0)
                found["R"].append(both / sum(actual))
                found["F1"].append(2 * both / (sum(actual) + sum(predicted)))
        values |= {f"{name}@{k}": 100 * float(np.mean(row)) if row else 0.0 for name, row in found.items()}
    return values


def slow_ranking_metrics(rankings: list[list[int]], positives: list[set[int]], k: int) -> dict[str, float]:
    """MRR, MAP and F1 at k, and R-precision, one query at a time."""
    reciprocal, average, f1, r_precision = [], [], [], []
    for ranking, row in zip(rankings, positives, strict=True):
        hits = [label in row for label in ranking[:k]]
        reciprocal.append(next((1 / place for place, hit in enumerate(hits, 1) if hit), 0.0))
        precisions = [sum(hits[:place]) / place for place, hit in enumerate(hits, 1) if hit]
        average.append(sum(precisions) / len(row) if row else 0.0)
        precision, recall = sum(hits) / k, sum(hits) / len(row) if row else 0.0
        f1.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
        r_precision.append(len(row.intersection(ranking[: len(row)])) / len(row) if row else 0.0)
    named = {f"MRR@{k}": reciprocal, f"MAP@{k}": average, f"F1@{k}": f1, "RPrec": r_precision}
    return {name: 100 * float(np.mean(values)) for name, values in named.items()}


def slow_global_average_precision(
    scores: npt.NDArray[np.floating], actual: npt.NDArray[np.bool_], k: int = 20
) -> float:
    """GAP as YouTube-8M defines it, from a score for every video and class, in percent.

    The k most confident predictions of each video are pooled and sorted by confidence, p(i) is the precision and r(i) the
    recall of the first i, and GAP = Σ_i p(i) (r(i) - r(i - 1)).
    """
    pool = []
    for video, of_classes in enumerate(scores):
        first = sorted(range(len(of_classes)), key=lambda name: -of_classes[name])[:k]
        pool += [(float(of_classes[name]), bool(actual[video, name])) for name in first]
    positives, hits, total, recall_before = int(actual.sum()), 0, 0.0, 0.0
    for place, (_, hit) in enumerate(sorted(pool, key=lambda pair: -pair[0]), 1):
        hits += hit
        recall = hits / positives if positives else 0.0
        total += hits / place * (recall - recall_before)
        recall_before = recall
    return 100 * total
