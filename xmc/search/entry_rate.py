"""How often labels enter the best ten of queries, and the scale by which labels from outside of training do so as others do.

Scores of labels that were not trained on are no scores of trained ones: texts of new labels are too close to all queries. A
factor for all new labels together is found without knowing any of their queries: the mean new label is to enter the best ten
of a run's stored queries as often as the mean trained label does, which is in 10 of L cases, with L trained labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmc.arrays import Embeddings, Mask
from xmc.indexes.versions import IndexVersion

__all__ = ["EntryRate", "Scaling"]

TOP = 10
"""Labels of a query that a label is to be among; of fewer than a hundred labels, the best tenth."""
MEASURED_LABELS = 20_000
"""Of more new labels than this, some that are evenly spread over all are measured."""
SCORES_AT_ONCE = 1 << 22
"""Scores of stored queries and new labels that are held at a time."""


@dataclass(frozen=True)
class Scaling:
    """What new labels were scaled by.

    labels: number of them. scale: the factor. rate: mean share of the stored queries whose best ten a label enters with it;
    NaN where there are no stored queries to measure with.
    """

    labels: int
    scale: float
    rate: float


@dataclass(frozen=True, eq=False)
class EntryRate:
    """The stored queries of a run, and what a label must score to be among the best of each.

    queries: float32 [n, D], those whose threshold is above 0, so that a larger scale always means more entries. thresholds:
    float32 [n], the score of the last label that is among the best. trained: number of the labels that were searched. top: how
    many labels are among the best. best: the mean score of the first of them.
    """

    queries: Embeddings
    thresholds: npt.NDArray[np.float32]
    trained: int
    top: int
    best: float

    @classmethod
    def from_index(cls, index: IndexVersion, queries: Embeddings, trained: Mask | None = None) -> EntryRate:
        """Search for the best labels of stored queries, float32 [n, D].

        trained: bool [rows], the index rows of the labels that count; None for all that are not removed.
        """
        if trained is not None and index.alive is not None:
            trained = trained & index.alive
        count = len(index) if trained is None else int(trained.sum())
        top = max(1, min(TOP, count // TOP))
        scores, _ = index.search(queries, top, allowed=trained)
        thresholds = scores[:, -1] if count else np.zeros(len(queries), np.float32)
        usable = thresholds > 0
        best = float(scores[usable, 0].mean()) if usable.any() else 0.0
        return cls(queries[usable], thresholds[usable], count, top, best)

    @property
    def usual(self) -> float:
        """The share of queries whose best ten the mean trained label enters; 0 without trained labels."""
        return self.top / self.trained if self.trained else 0.0

    def scaling(self, vectors: Embeddings, expected: float, most: float = np.inf) -> Scaling:
        """The least scale with which labels, vectors [m, D], enter the best ten of a share `expected` of the queries each.

        most: the scale is no greater.

        It is a mean over the labels, rounded up to whole entries, so that at least one label enters the best ten of one query.
        Exact: a label enters from the ratio of threshold and score on, so that the scale is a quantile of these ratios.
        """
        count = len(vectors)
        if not (count and len(self.queries)):
            return Scaling(count, 1.0, float("nan"))
        step = max(1, -(-count // MEASURED_LABELS))
        measured = vectors[::step]
        wanted = max(1, int(np.ceil(expected * len(self.queries) * len(measured) - 1e-6)))
        least = np.full(wanted, np.inf, np.float32)
        for ratios in self._ratios(measured):
            least = np.partition(np.concatenate([least, ratios]), wanted - 1)[:wanted]
        finite = least[np.isfinite(least)]
        scale = min(float(finite.max()) if len(finite) else 1.0, most)
        return Scaling(count, scale, self.rate(measured * np.float32(scale)))

    def rate(self, vectors: Embeddings) -> float:
        """The mean share of the queries whose best ten labels enter, given their vectors [m, D]."""
        entries = sum(int((ratios <= 1 + 1e-6).sum()) for ratios in self._ratios(vectors))
        return entries / (len(self.queries) * len(vectors))

    def _ratios(self, vectors: Embeddings) -> Iterator[npt.NDArray[np.float32]]:
        """Some at a time, the scale from which on a label enters the best of a query; infinite where no scale does that."""
        width = max(1, SCORES_AT_ONCE // len(self.queries))
        for start in range(0, len(vectors), width):
            scores = self.queries @ vectors[start : start + width].T
            ratios = np.full(scores.shape, np.inf, np.float32)
            with np.errstate(over="ignore"):
                np.divide(self.thresholds[:, None], scores, out=ratios, where=scores > 0)
            yield ratios.ravel()
