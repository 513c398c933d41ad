"""Which pairs that are not given are relevant: by how pairs score that are given and that training did not see."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from xmc.training.supervision.logistic import fit_logistic
from xmc.training.supervision.totals import moves_to_totals

__all__ = ["MissingFit", "fit_missing", "pair_features", "share_recorded"]

Values = npt.NDArray[np.float64]
SURE = 1e-9
"""No share is taken to be below this."""
ROUNDS = 200


@dataclass(frozen=True)
class MissingFit:
    """P(relevant) of pairs that training did not see: σ(t·x) of their `pair_features` x.

    coefficients: float64 [4]. totals: float64 [groups], expected numbers of relevant pairs among the candidates, by group of
    labels.
    """

    coefficients: Values
    totals: Values = field(default_factory=lambda: np.zeros(0))

    def odds(self, features: Values, recorded: Values) -> Values:
        """Log odds that pairs are relevant that are not given, features [..., 4], [...].

        recorded: of each pair, the share c of relevant pairs that are given, among those that training did not see. One that is
        relevant is not given with probability 1 - c, one that is not, with 1.
        """
        odds: Values = features @ self.coefficients + np.log(np.maximum(1 - recorded, SURE))
        return odds

    def balanced(self, odds: Values, groups: npt.NDArray[np.integer]) -> Values:
        """The probabilities of candidates, whose log odds are moved in each group until `totals` of them are relevant.

        Scores move while training goes on, and pairs that it did not see are no more; what stays is how many are missing.
        """
        probabilities: Values = expit(odds + moves_to_totals(odds, groups, self.totals)[groups])
        return probabilities


def pair_features(scores: npt.NDArray[np.floating], level: Values, counts: npt.NDArray[np.integer]) -> Values:
    """What tells how probable pairs are, float64 [..., 4]: 1, the score, the level of scores of the query, log(1 + n_j).

    scores: of any shape. level: the log-sum-exp of the query's best scores. counts: n_j, how often the label is given.
    """
    constant = np.ones(np.shape(scores))
    return np.stack([constant, scores, np.broadcast_to(level, np.shape(scores)), np.log1p(counts)], axis=-1)


def fit_missing(unseen: tuple[Values, Values], others: tuple[Values, Values], recorded: Values) -> MissingFit:
    """Fit on pairs that training did not see: given ones, and all that are not given.

    Which of the latter are relevant is not known: expectation maximisation over them, where a relevant pair is given with a
    known probability c (Elkan & Noto, "Learning classifiers from only positive and unlabeled data", KDD 2008, with the
    classifier of relevance, not of being given, as the logistic one).

    unseen: features [u, d], and the probability that the pair is right, [u]. others: features [v, d], and how many pairs each
    stands for, [v]. recorded: c of each of the others, [v].
    """
    features = np.concatenate([unseen[0], others[0]])
    weights = np.concatenate([np.ones(len(unseen[0])), others[1]])
    relevant = np.concatenate([unseen[1], np.zeros(len(others[0]))])
    fit, before = MissingFit(fit_logistic(features, relevant, weights)), -1.0
    for _ in range(ROUNDS):
        relevant[len(unseen[0]) :] = expit(fit.odds(others[0], recorded))
        fit = MissingFit(fit_logistic(features, relevant, weights, fit.coefficients))
        now = float(relevant @ weights)
        if abs(now - before) < 1e-4 * now:
            break
        before = now
    return fit


def share_recorded(recorded: Values, held_out: float) -> Values:
    """The share of given ones among the relevant pairs that training did not see.

    recorded: c, the share of the relevant pairs that is given. held_out: h, the share of given pairs that training leaves out:
    h c of them against 1 - c that are missing.
    """
    held = held_out * recorded
    share: Values = held / np.maximum(held + 1 - recorded, SURE)
    return share
