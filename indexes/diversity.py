"""Maximal marginal relevance: results that are not all the same."""

from __future__ import annotations

import numpy as np

from xmc.arrays import Embeddings, Rows
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.scan import first_found

__all__ = ["diversify"]

PAIRS = 1 << 22
"""Similarities of candidates that are held at a time."""


def diversify(
    embeddings: EmbeddingBlocks, scores: Embeddings, rows: Rows, k: int, diversity: float
) -> tuple[Embeddings, Rows]:
    """Choose k of the candidates [n, m] of each query one by one, each for its score and against those chosen before.

    The next is argmax_j (1 - diversity)·score_j - diversity·max_{c chosen} z_j·z_c (Carbonell & Goldstein, "The use of
    MMR", SIGIR 1998, with λ = 1 - diversity). Scores and rows [n, k] come in the order chosen; -inf and -1 where
    candidates run out.
    """
    queries, candidates = rows.shape
    k = min(k, candidates)
    chosen = np.zeros((queries, k), np.int64)
    height = max(1, PAIRS // max(1, candidates * candidates))
    for top in range(0, queries, height):
        part, relevance = rows[top : top + height], scores[top : top + height]
        vectors = embeddings.take(np.maximum(part, 0).ravel()).reshape(*part.shape, -1)
        similar = vectors @ vectors.transpose(0, 2, 1)
        closest = np.full(part.shape, -np.inf, np.float32)
        left = np.where(part >= 0, (1 - diversity) * np.where(part >= 0, relevance, 0), -np.inf)
        here = np.arange(len(part))
        for place in range(k):
            penalty = 0 if place == 0 else diversity * closest
            best = np.argmax(left - penalty, axis=1)
            chosen[top : top + height, place] = best
            left[here, best] = -np.inf
            closest = np.maximum(closest, similar[here, best])
    picked, kept = np.take_along_axis(rows, chosen, 1), np.take_along_axis(scores, chosen, 1)
    again = _repeated(chosen)  # argmax over nothing but -inf gives the same place again
    picked[again], kept[again] = -1, -np.inf
    return first_found(kept, picked, k)


def _repeated(chosen: Rows) -> np.ndarray:
    """Where a row of `chosen` names a place that it named before."""
    order = np.argsort(chosen, axis=1, kind="stable")
    ordered = np.take_along_axis(chosen, order, 1)
    repeated = np.zeros(chosen.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
    return repeated
