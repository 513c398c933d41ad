"""From scores to probabilities: logistic (Platt) or isotonic, in bands of ranks, applied without anything but numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmc.calibration.candidates import FREQUENCY_GROUPS, Candidates

__all__ = [
    "BANDS",
    "FREQUENCIES",
    "GROUPS",
    "KNOWN",
    "Floats",
    "Probabilities",
    "bands",
    "blocks",
    "evidence",
    "log_normaliser",
]

Floats = npt.NDArray[np.float64]

BANDS = (0, 1, 3, 10, 100, 1000)
"""Ranks from which another model holds, from 0: a first label of a query is another thing than its tenth, or hundredth."""
CELLS_AT_ONCE = 1 << 17
KNOWN, GROUPS = 3, 5
"""Weights of what is known of a candidate, then of how that changes with frequency, then of each frequency group."""
FREQUENCIES = np.linspace(-1, 1, len(FREQUENCY_GROUPS))


@dataclass(frozen=True)
class Probabilities:
    """A model of the probability that a candidate is true.

    With s the score over the temperature τ, N = log Σ_j exp(s_j) over the query's candidates, r the rank from 0, g the label's
    frequency group and f its place among FREQUENCY_GROUPS, from -1 to 1, in each band of ranks

        logit p = a + (b + b' f) s + (c + c' f) N + d log(1 + r) + e_g

    fitted by logistic regression with an L2 penalty, which shrinks e_g to 0 for groups with few examples (Platt, "Probabilistic
    outputs for support vector machines", 1999; with b = -c and all else 0, temperature scaling of a softmax, Guo et al., ICML
    2017). "isotonic" sends the same sum through a monotone step function instead (Zadrozny & Elkan, KDD 2002).

    temperature: τ. intercepts: float64 [bands], a. weights: float64 [bands, 5 + groups], b, c, d, b', c', e; the last ones are
        all 0 without frequencies.
    knots: for each band the steps of the isotonic function, float64 [2, m]; empty for logistic.
    """

    temperature: float
    intercepts: Floats
    weights: Floats
    knots: tuple[Floats, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(BANDS), GROUPS + len(FREQUENCY_GROUPS))
        if self.weights.shape != shape or self.intercepts.shape != shape[:1] or len(self.knots) not in (0, len(BANDS)):
            raise ValueError(f"weights of a model of probability must have the shape {shape}, not {self.weights.shape}")

    @property
    def method(self) -> str:
        """As it is called in reports."""
        return ("isotonic" if self.knots else "platt") + (" by frequency" if self.weights[:, KNOWN:].any() else "")

    def __call__(self, candidates: Candidates) -> Floats:
        """Probabilities float64 [n, K], 0 where there is no label. Those of a query do not depend on the other queries."""
        probabilities = np.zeros(candidates.scores.shape)
        for rows in blocks(*candidates.scores.shape):
            block = candidates.take(rows)
            probabilities[rows] = np.where(np.isfinite(block.scores), self.of_sums(self.sums(block)), 0)
        return probabilities

    def sums(self, candidates: Candidates, normaliser: Floats | None = None) -> Floats:
        """logit p of the logistic model, which the isotonic function is of, float64 [n, K]; normaliser: N, where known."""
        normaliser = log_normaliser(candidates, self.temperature) if normaliser is None else normaliser
        sums = np.zeros(candidates.scores.shape)
        for band, (first, end) in enumerate(bands(candidates.scores.shape[1])):
            scores, groups = candidates.scores[:, first:end], candidates.groups[:, first:end]
            sums[:, first:end] = self.sums_of_band(band, scores, groups, normaliser)
        return sums

    def sums_of_band(
        self, band: int, scores: npt.NDArray[np.float32], groups: npt.NDArray[np.int8], normaliser: Floats
    ) -> Floats:
        """`sums` of the candidates [n, m] with the ranks of a band.

        Number by number: a matrix product rounds the same query otherwise in another block.
        """
        scaled, ranks = _scaled(scores, self.temperature, BANDS[band])
        score, normal, rank, score_slope, normal_slope = self.weights[band, :GROUPS]
        scaled *= (score + score_slope * FREQUENCIES)[groups]
        scaled += normaliser[:, None] * (normal + normal_slope * FREQUENCIES)[groups]
        scaled += (self.weights[band, GROUPS:] + self.intercepts[band])[groups]
        scaled += rank * ranks
        return scaled

    def of_sums(self, sums: Floats) -> Floats:
        """The probabilities of all K `sums` of queries, float64 [n, K]."""
        from scipy.special import expit  # a twentieth of the time a program starts, which few runs need

        probabilities = np.zeros(sums.shape)
        for band, (first, end) in enumerate(bands(sums.shape[1])):
            banded = sums[:, first:end]
            probabilities[:, first:end] = np.interp(banded, *self.knots[band]) if self.knots else expit(banded)
        return probabilities


def bands(k: int) -> Iterator[tuple[int, int]]:
    """Ranks [first, end) of each band that K candidates reach."""
    ends = (*BANDS[1:], max(k, BANDS[-1]))
    return ((first, min(end, k)) for first, end in zip(BANDS, ends, strict=True) if first < k)


def blocks(queries: int, k: int) -> Iterator[npt.NDArray[np.int64]]:
    """The row numbers of queries in blocks whose K candidates take a bounded memory."""
    step = max(1, CELLS_AT_ONCE // max(k, 1))
    return (np.arange(first, min(first + step, queries)) for first in range(0, queries, step))


def log_normaliser(candidates: Candidates, temperature: float) -> Floats:
    """log Σ_j exp(s_j) over each query's candidates, float64 [n]; 0 without any."""
    normaliser = np.zeros(len(candidates))
    for rows in blocks(*candidates.scores.shape):
        scores = candidates.scores[rows].astype(np.float64) / temperature
        best = np.max(scores, axis=1, initial=-np.inf)
        has_label = np.isfinite(best)
        sums = np.exp(scores[has_label] - best[has_label, None]).sum(axis=1)
        normaliser[rows[has_label]] = best[has_label] + np.log(sums)
    return normaliser


def evidence(scores: npt.NDArray[np.float32], normaliser: Floats, temperature: float, first: int) -> Floats:
    """s, N and log(1 + r) of candidates [n, m] with the ranks from `first` on, float64 [n, m, 3]; s is 0 without a label."""
    scaled, ranks = _scaled(scores, temperature, first)
    return np.stack([scaled, *np.broadcast_arrays(normaliser[:, None], ranks)], axis=-1)


def _scaled(scores: npt.NDArray[np.float32], temperature: float, first: int) -> tuple[Floats, Floats]:
    """s float64 [n, m], and log(1 + r) float64 [m]."""
    scaled = scores.astype(np.float64) / temperature
    scaled[~np.isfinite(scaled)] = 0
    return scaled, np.log1p(np.arange(first, first + scores.shape[1], dtype=np.float64))
