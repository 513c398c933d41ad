"""Fit models of probability on judged candidates, and choose between them by the Brier score of queries held out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmc.calibration.candidates import FREQUENCY_GROUPS, JudgedCandidates
from xmc.calibration.probabilities import (
    BANDS,
    FREQUENCIES,
    GROUPS,
    KNOWN,
    Floats,
    Probabilities,
    bands,
    blocks,
    evidence,
    log_normaliser,
)

__all__ = ["FOLDS", "Choice", "choose_probabilities", "fit_probabilities"]

logger = logging.getLogger("xmc.calibration")

FOLDS = 5
MOST_ROWS = 400_000
"""A band is fitted on a sample of queries with at most about this number of candidates in it."""
MOST_CELLS = 4_000_000
"""A fold is judged by a sample of its queries with at most about this number of candidates."""
CLIPPED = 1e-7
"""No probability of an isotonic function is nearer to 0 or 1, even for scores that were never wrong."""


@dataclass(frozen=True)
class Choice:
    """A fitted model, and the Brier scores of all that were tried, by method: the mean over held-out queries of
    Σ_j (p_j - y_j)² over their candidates."""

    probabilities: Probabilities
    brier: dict[str, float]


def choose_probabilities(judged: JudgedCandidates, temperature: float, by_frequency: bool) -> Choice:
    """Fit on all queries the method that has the lowest Brier score in cross-validation, over queries by their draws.

    by_frequency: whether models that know frequency groups are tried too. Needs scikit-learn.
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    # Fits are of some 100,000 numbers, for which several libraries' threads wait for each other longer than they compute.
    with threadpool_limits(1):
        return _chosen(judged, temperature, by_frequency)


def _chosen(judged: JudgedCandidates, temperature: float, by_frequency: bool) -> Choice:
    order = np.lexsort((judged.candidates.scores[:, 0], judged.draws))
    queries = _Queries.from_judged(
        judged.take(order), temperature
    )  # in order, so that sums do not depend on that they come in
    fold = (queries.judged.draws * FOLDS * 1_000).astype(np.int64) % FOLDS
    grouped = (False, True) if by_frequency else (False,)
    errors = dict.fromkeys(((isotonic, groups) for groups in grouped for isotonic in (False, True)), 0.0)
    tested = 0
    for number in range(FOLDS):
        rows = np.flatnonzero(fold == number)
        step = max(-(-len(rows) * judged.hits.shape[1] // MOST_CELLS), 1)
        training, testing = queries.take(np.flatnonzero(fold != number)), queries.take(rows[::step])
        if not len(testing.judged) or not training.judged.hits.any():
            continue
        tested += len(testing.judged)
        for groups in grouped:
            platt = _platt(training, temperature, groups)
            for isotonic, error in enumerate(_squared_errors((platt, _stepped(platt, training)), testing)):
                errors[bool(isotonic), groups] += error
    brier = {_name(*method): error / max(tested, 1) for method, error in errors.items()}
    isotonic, groups = min(errors, key=lambda method: errors[method])
    logger.info("probabilities by %s; held-out Brier scores %s", _name(isotonic, groups), brier)
    return Choice(fit_probabilities(queries.judged, temperature, isotonic, groups), brier)


def fit_probabilities(
    judged: JudgedCandidates, temperature: float, isotonic: bool, by_frequency: bool
) -> Probabilities:
    """One model, on the candidates of these queries, in the order of their draws where they are too many for a band."""
    queries = _Queries.from_judged(judged, temperature)
    platt = _platt(queries, temperature, by_frequency)
    return _stepped(platt, queries) if isotonic else platt


@dataclass(frozen=True)
class _Band:
    """What a band is fitted on: candidates of some queries with its ranks [n, m], and their queries' N [n]."""

    scores: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int8]
    hits: npt.NDArray[np.bool_]
    normaliser: Floats

    @property
    def is_label(self) -> npt.NDArray[np.bool_]:
        return np.isfinite(self.scores)


@dataclass(frozen=True)
class _Queries:
    """Judged candidates with the N of each query, which takes all its candidates and is the same for every model."""

    judged: JudgedCandidates
    normaliser: Floats

    @classmethod
    def from_judged(cls, judged: JudgedCandidates, temperature: float) -> _Queries:
        return cls(judged, log_normaliser(judged.candidates, temperature))

    def take(self, rows: npt.NDArray[np.integer]) -> _Queries:
        return _Queries(self.judged.take(rows), self.normaliser[rows])

    def band(self, first: int, end: int) -> _Band:
        """The candidates with the ranks [first, end) of evenly spaced queries, at most about MOST_ROWS candidates."""
        step = max(-(-len(self.judged) * (end - first) // MOST_ROWS), 1)  # they are in the order of draws: at random
        rows, ranks, candidates = slice(None, None, step), slice(first, end), self.judged.candidates
        hits = self.judged.hits[rows, ranks]
        return _Band(candidates.scores[rows, ranks], candidates.groups[rows, ranks], hits, self.normaliser[rows])


def _platt(queries: _Queries, temperature: float, by_frequency: bool) -> Probabilities:
    from sklearn.linear_model import LogisticRegression

    intercepts, weights = np.zeros(len(BANDS)), np.zeros((len(BANDS), GROUPS + len(FREQUENCY_GROUPS)))
    for band, (first, end) in enumerate(bands(queries.judged.hits.shape[1])):
        sample = queries.band(first, end)
        known = evidence(sample.scores, sample.normaliser, temperature, first)[sample.is_label]
        hits = sample.hits[sample.is_label]
        if hits.all() or not hits.any():  # nothing to tell apart: the rule of succession
            intercepts[band] = np.log((hits.sum() + 1) / ((~hits).sum() + 1))
            continue
        mean, scale = known.mean(axis=0), known.std(axis=0)
        scale[scale < 1e-9] = np.inf  # a number that is always the same tells nothing
        design = (known - mean) / scale
        if by_frequency:
            groups = sample.groups[sample.is_label]
            slopes = FREQUENCIES[groups, None] * design[:, : GROUPS - KNOWN]
            design = np.concatenate([design, slopes, np.eye(len(FREQUENCY_GROUPS))[groups]], axis=1)
        model = LogisticRegression(C=1.0, max_iter=1_000).fit(design, hits)
        weights[band, : design.shape[1]] = model.coef_[0]
        weights[band, :KNOWN] /= scale
        weights[band, KNOWN:GROUPS] /= scale[: GROUPS - KNOWN]
        intercepts[band] = model.intercept_[0] - mean @ weights[band, :KNOWN]
        weights[band, GROUPS:] -= FREQUENCIES * (mean[: GROUPS - KNOWN] @ weights[band, KNOWN:GROUPS])
    return Probabilities(temperature, intercepts, weights)


def _stepped(platt: Probabilities, queries: _Queries) -> Probabilities:
    from sklearn.isotonic import IsotonicRegression

    knots = [np.array([[0.0], [CLIPPED]])] * len(BANDS)
    for band, (first, end) in enumerate(bands(queries.judged.hits.shape[1])):
        sample = queries.band(first, end)
        if sample.is_label.any():
            model = IsotonicRegression(y_min=CLIPPED, y_max=1 - CLIPPED, out_of_bounds="clip")
            sums = platt.sums_of_band(band, sample.scores, sample.groups, sample.normaliser)
            model.fit(sums[sample.is_label], sample.hits[sample.is_label])
            knots[band] = np.stack([model.X_thresholds_, model.y_thresholds_]).astype(np.float64)
    return Probabilities(platt.temperature, platt.intercepts, platt.weights, tuple(knots))


def _squared_errors(models: Sequence[Probabilities], queries: _Queries) -> list[float]:
    """Σ (p - y)² over all candidates, by models that differ in their isotonic functions alone."""
    errors = [0.0] * len(models)
    for rows in blocks(*queries.judged.hits.shape):
        block = queries.take(rows)
        missing = ~np.isfinite(block.judged.candidates.scores)
        sums = models[0].sums(block.judged.candidates, block.normaliser)
        for number, model in enumerate(models):
            difference = model.of_sums(sums) - block.judged.hits
            difference[missing] = 0
            errors[number] += float((difference**2).sum())
    return errors


def _name(isotonic: bool, by_frequency: bool) -> str:
    return ("isotonic" if isotonic else "platt") + (" by frequency" if by_frequency else "")
