"""Which given pairs are wrong: by what training has learned of them, and by what it would have if they were chance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

__all__ = ["chance_and_rest", "share_of_chance", "two_normals"]

Scores = npt.NDArray[np.float64]
ROUNDS = 100


def share_of_chance(scores: Scores, chance: Scores) -> float:
    """The largest share of some pairs that may have come by chance, in [0, 0.9], given their scores [n] and chance's [m].

    scores: of pairs that training did not see. chance: of the same labels with queries drawn at random. Of scores
    F = (1 - w) F_true + w F_chance, no quantile q has F(q) below w F_chance(q), so that w is at most F(q) / F_chance(q); few
    true pairs score like the lower part of chance, and the bound is close there (mixture proportion estimation; Blanchard, Lee
    & Scott, "Semi-supervised novelty detection", JMLR 2010). 0 where either is empty.
    """
    if not len(scores) or not len(chance):
        return 0.0
    cuts = np.quantile(chance, np.linspace(0.15, 0.7, 12))
    below = (scores[:, None] <= cuts).mean(axis=0) / (chance[:, None] <= cuts).mean(axis=0)
    return float(min(below.min(), 0.9))


def two_normals(scores: Scores, wrong: float) -> Scores:
    """The probability that each of some pairs is true, float64 [n], where a share of them is known to be wrong.

    scores: [n], of pairs that training saw. Those of true pairs and of wrong ones are taken to be normal, of one variance, with
    means found by expectation maximisation (the mixture of Arazo et al., "Unsupervised label noise modeling and loss
    correction", ICML 2019, of scores in place of losses).
    """
    if wrong <= 0 or len(scores) < 2 or np.ptp(scores) == 0:
        return np.full(len(scores), 1.0 - wrong)
    cut = np.quantile(scores, wrong)
    low, high = scores[scores <= cut].mean(), scores[scores > cut].mean() if (scores > cut).any() else scores.max()
    variance = scores.var() / 2
    for _ in range(ROUNDS):
        true = _probability(scores, wrong, low, high, variance)
        weight = max(float(true.sum()), 1e-9)
        rest = max(len(scores) - weight, 1e-9)
        before = low, high
        high, low = float(true @ scores) / weight, float((1 - true) @ scores) / rest
        squares = true * (scores - high) ** 2 + (1 - true) * (scores - low) ** 2
        variance = max(float(squares.mean()), 1e-9)
        if abs(high - before[1]) + abs(low - before[0]) < 1e-6:
            break
    return _probability(scores, wrong, low, high, variance)


def chance_and_rest(scores: Scores, chance: Scores, wrong: float) -> Scores:
    """As `two_normals`, of pairs that training did not see: wrong ones score as chance does, [m], and the rest is true."""
    if wrong <= 0 or len(scores) < 2 or not len(chance):
        return np.full(len(scores), 1.0 - wrong)
    mean, variance = float(chance.mean()), max(float(chance.var()), 1e-9)
    of_true = (float(scores.mean()) - wrong * mean) / (1 - wrong)
    square = (float((scores**2).mean()) - wrong * (variance + mean**2)) / (1 - wrong)
    low = np.log(wrong) - 0.5 * np.log(variance) - (scores - mean) ** 2 / (2 * variance)
    spread = max(square - of_true**2, variance / 4)
    high = np.log(1 - wrong) - 0.5 * np.log(spread) - (scores - of_true) ** 2 / (2 * spread)
    return _sigmoid(high - low)


def _probability(scores: Scores, wrong: float, low: float, high: float, variance: float) -> Scores:
    difference = ((scores - high) ** 2 - (scores - low) ** 2) / (2 * variance) + np.log(wrong) - np.log1p(-wrong)
    return _sigmoid(-difference)


def _sigmoid(odds: Scores) -> Scores:
    probability: Scores = expit(odds)
    return probability
