"""What a re-ranker is worth on queries that it was not fitted on, and the settings that are best there: cross-fitting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.arrays import Embeddings, Rows
from xmc.evaluation.shortlists import Shortlists
from xmc.search.rerank.models import RerankModel

__all__ = ["EXPONENTS", "CrossFitted", "CrossFitting"]

FOLDS = 5
EXPONENTS = (0.5, 0.0)
"""Powers of the inverse propensity that a true label is weighted by: with 0 all count alike, and rare labels lose."""
RARE = "PSP@5"
"""The metric that rare labels weigh most in, which a re-ranker is to keep."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CrossFitted:
    """Settings of a model, and the metrics in percent that it has on queries that it was not fitted on.

    exponent: see EXPONENTS.
    """

    settings: Mapping[str, Any]
    exponent: float
    metrics: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Of the metrics."""
        return float(np.mean(list(self.metrics.values())))


@dataclass(frozen=True)
class CrossFitting:
    """A kind of model and the shortlists that it is fitted on, in FOLDS parts of the queries.

    inverse_propensities: float64 [n, m], of each candidate; ones where they are not known. fold: int64 [n], in [0, FOLDS).
    metrics: of new scores float32 [n, m], in percent.
    """

    kind: type[RerankModel]
    shortlists: Shortlists
    inverse_propensities: Floats
    fold: Rows
    metrics: Callable[[Embeddings], Mapping[str, float]]

    @classmethod
    def from_shortlists(
        cls,
        kind: type[RerankModel],
        shortlists: Shortlists,
        inverse_propensities: Floats,
        seed: int,
        metrics: Callable[[Embeddings], Mapping[str, float]],
    ) -> CrossFitting:
        """Queries are drawn into folds of equal size by the seed."""
        fold = np.random.default_rng(seed).permutation(len(shortlists)) % FOLDS
        return cls(kind, shortlists, inverse_propensities, fold, metrics)

    def best(self, before: Mapping[str, float]) -> CrossFitted:
        """The best settings: first the exponent, by the first settings of the model's grid, then the others of the grid.

        Those that keep PSP@5 go first, then the mean of the metrics counts. before: the metrics without a re-ranker.
        """

        def rank(tried: CrossFitted) -> tuple[bool, float]:
            return tried.metrics.get(RARE, 0.0) >= before.get(RARE, 0.0), tried.mean

        first, *others = self.kind.grid
        best = max((self.tried(first, exponent) for exponent in self._exponents()), key=rank)
        return max([best, *(self.tried(settings, best.exponent) for settings in others)], key=rank)

    def tried(self, settings: Mapping[str, Any], exponent: float) -> CrossFitted:
        """Each fold is scored by a model that was fitted on the others."""
        scores = np.full(self.shortlists.ids.shape, -np.inf, np.float32)
        for number in range(FOLDS):
            model = self.fitted(np.flatnonzero(self.fold != number), settings, exponent)
            rows = np.flatnonzero(self.fold == number)
            scores[rows] = new_scores(model, self.shortlists.take(rows))
        return CrossFitted(settings, exponent, self.metrics(scores))

    def fitted(self, rows: Rows, settings: Mapping[str, Any], exponent: float) -> RerankModel:
        """A model fitted on the candidates of some queries."""
        some = self.shortlists.take(rows)
        true = some.true[some.counted]
        weights = np.where(true, self.inverse_propensities[rows][some.counted] ** exponent, 1.0)
        return self.kind.fit(some.values[some.counted], true, weights, **settings)

    def _exponents(self) -> tuple[float, ...]:
        """One alone where propensities are not known."""
        return (0.0,) if (self.inverse_propensities == 1).all() else EXPONENTS


def new_scores(model: RerankModel, shortlists: Shortlists) -> Embeddings:
    """The model's log-odds of the candidates, float32 [n, m], -inf where there is no label."""
    scores = np.full(shortlists.ids.shape, -np.inf, np.float32)
    there = shortlists.ids >= 0
    scores[there] = model.log_odds(shortlists.values[there])
    return scores
