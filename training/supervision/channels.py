"""How much each source of votes may be believed, found from how far sources agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from xmc.training.supervision.evidence import PairVotes
from xmc.training.supervision.logistic import fit_logistic

__all__ = ["Channels", "estimate_channels"]

Values = npt.NDArray[np.float64]
ROUNDS = 100
PRIOR_VOTES = 2.0
"""Votes of a source's mean that are added to those of each group of labels."""
BOUND = 1e-4
"""No probability of a vote is below this or above one less this."""


@dataclass(frozen=True)
class Channels:
    """What the votes of S sources say in G groups of labels.

    true, untrue: float64 [S, G], the probability that a vote of the source is positive where the pair is relevant, and where it
    is not. prior: float64 [G], the share of relevant pairs among those that are voted on.
    """

    true: Values
    untrue: Values
    prior: Values

    @property
    def accuracy(self) -> Values:
        """The probability that a vote is right where as many pairs are relevant as not, in the mean of the groups: [S]."""
        of_groups: Values = (self.true + 1 - self.untrue) / 2
        accuracy: Values = of_groups.mean(axis=1)
        return accuracy

    def evidence(self, votes: PairVotes, groups: npt.NDArray[np.integer]) -> Values:
        """What the votes add to the log odds of each pair, float64 [n]: nothing where no source votes. groups: int [n]."""
        cell = votes.sources * self.true.shape[1] + groups[votes.places]
        yes, no = np.log(self.true / self.untrue).ravel(), np.log((1 - self.true) / (1 - self.untrue)).ravel()
        says = np.where(votes.values > 0, yes[cell], no[cell])
        evidence: Values = np.bincount(votes.places, np.abs(votes.values) * says, len(groups)).astype(np.float64)
        return evidence

    def posterior(self, votes: PairVotes, groups: npt.NDArray[np.integer]) -> Values:
        """The probability that each pair is relevant by its votes alone, float64 [n]; the prior where no source votes."""
        probability: Values = expit(logit(self.prior)[groups] + self.evidence(votes, groups))
        return probability


def estimate_channels(
    votes: PairVotes,
    groups: npt.NDArray[np.integer],
    count: int,
    known: npt.NDArray[np.floating],
    features: Values | None = None,
) -> Channels:
    """Dawid & Skene's estimate (1979) for yes-or-no questions: sources are independent of each other, given the truth.

    groups: int [n], in [0, count), the group of each pair that votes name by place. known: float64 [n], the probability that a
    pair is relevant as it is known besides, such as 1 for a given one; NaN where nothing is known. features: float64 [n, d],
    one of them constant, by which a logistic regression tells how probable a pair is before any vote; None for one prior of
    each group. Two sources alone cannot tell which of them is right; a feature of the pair that is independent of both can.

    A vote of value v counts |v| votes. A source that is silent on a pair says nothing. Each group of labels has its own
    channels, drawn to the source's mean by PRIOR_VOTES votes. Expectation maximisation begins with the weighted majority.
    """
    places, sources = votes.places, votes.sources
    weight, positive = np.abs(votes.values).astype(np.float64), votes.values > 0
    cell = sources * count + groups[places]
    voted = np.bincount(places, minlength=len(groups)) > 0
    in_group = np.bincount(groups[voted], minlength=count)
    free = np.isnan(known)
    net = np.bincount(places, np.where(positive, weight, -weight), len(groups))
    posterior = np.where(free, expit(net), known)
    shape = len(votes.names), count
    for _ in range(ROUNDS):
        before = posterior
        channels = Channels(
            _shares(cell, posterior[places], weight, positive, shape),
            _shares(cell, 1 - posterior[places], weight, positive, shape),
            (np.bincount(groups[voted], posterior[voted], count) + 1) / (in_group + 2),
        )
        prior = logit(channels.prior)[groups]
        if features is not None:
            fitted = fit_logistic(features[voted], posterior[voted], np.ones(int(voted.sum())))
            prior = features @ fitted
        posterior = np.where(free, expit(prior + channels.evidence(votes, groups)), known)
        if float(np.abs(posterior - before).max(initial=0.0)) < 1e-6:
            break
    return channels


def _shares(
    cell: npt.NDArray[np.integer], of: Values, weight: Values, positive: npt.NDArray[np.bool_], shape: tuple[int, int]
) -> Values:
    """The share of positive votes among those of each source and group, each vote counting as much as its pair is `of`."""
    size = shape[0] * shape[1]
    every = np.bincount(cell, weight * of, size).reshape(shape)
    yes = np.bincount(cell[positive], (weight * of)[positive], size).reshape(shape)
    mean = (yes.sum(1) + 1) / (every.sum(1) + 2)
    shares: Values = (yes + PRIOR_VOTES * mean[:, None]) / (every + PRIOR_VOTES)
    return np.clip(shares, BOUND, 1 - BOUND)
