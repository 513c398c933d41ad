"""The best labels of embeddings by their inner products, exactly, with a few megabytes of scores at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xmc.arrays import Embeddings, Rows
from xmc.storage.tensors import OpenTensor

__all__ = ["best_rows"]

LABELS_TOGETHER = 512
"""Number of labels that are in memory, and multiplied, together."""
SCORES_TOGETHER = 1 << 19
"""Number of scores that are held at most, where a query's are no more than that."""


def best_rows(
    queries: Embeddings, blocks: Sequence[OpenTensor], k: int, living: Rows | None
) -> tuple[Embeddings, Rows]:
    """Scores and rows [n, k] of the best labels of queries float32 [n, D], ties by the lower row.

    blocks: embeddings of all labels, one after another. k: at most the number of labels. living: rows of `blocks`, ascending,
    that may be found, and that rows are counted in; None for all.
    """
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    count = sum(block.shape[0] for block in blocks)
    height = max(1, SCORES_TOGETHER // max(1, count))
    for top in range(0, len(queries), height):
        part = queries[top : top + height]
        held = np.empty((len(part), count), np.float32)
        behind = 0
        for block in blocks:
            for first, labels in block.slices(LABELS_TOGETHER):
                held[:, behind + first : behind + first + len(labels)] = part @ labels.T
            behind += block.shape[0]
        allowed = held if living is None else held[:, living]
        for row, values in enumerate(allowed, top):
            rows[row] = _best(values, k)
            scores[row] = values[rows[row]]
    return scores, rows


def _best(scores: Embeddings, k: int) -> Rows:
    """The places of the k largest of some scores, best first, the lower place first among equals."""
    if k == 0:
        return np.zeros(0, np.int64)
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")[:k]]
