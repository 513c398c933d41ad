"""How probable pairs are that are voted for by sources that never vote against any."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from xmc.arrays import Mask, Rows
from xmc.training.supervision.evidence import PairEvidence, PairVotes

__all__ = ["Approvals", "Approved"]

Values = npt.NDArray[np.float64]
LEVELS = 4
"""Votes of values in (0, 1] are taken to be of this many strengths."""
PRIOR_VOTES = 2.0
"""Votes of the mean that are added to those of each combination, and of each label."""
TINY = 1e-12
MOST = 40.0
"""No log odds are moved by more."""
HALVINGS = 40


@dataclass(frozen=True)
class Approved:
    """What is found of pairs that are voted for by approving sources.

    probabilities: float64 [m], that each is relevant if it is not given. precisions: the share of each source's votes that is
    right, by its name.
    """

    probabilities: Values
    precisions: dict[str, float]


class Approvals:
    """The m pairs that approving sources vote for, at `places` of the evidence, and in which combination of these sources.

    None where no given pair is among them: then nothing tells how far such votes may be believed.

    How far sources may be believed that only ever say yes, such as names found in texts, does not follow from how they agree.
    It follows from the given pairs: a source that does not know what is given finds the same share of the relevant pairs among
    those that are given and those that are not. So a combination s of V_s votes, which finds the share r_s of the given pairs,
    is right in q_s = r_s T / V_s of its votes, where T is the number of all relevant pairs as the share says that is given.

    Labels do not lack pairs alike. Of those without any given pair, every right vote is on a missing pair. What is left of the
    right votes on missing pairs is shared out over the others, by how many pairs each lacks, as the share that is given says,
    and how many of its given ones are voted for.
    """

    def __init__(self, evidence: PairEvidence, labelled: Mask) -> None:
        self.evidence = evidence
        votes = evidence.votes
        against = np.bincount(votes.sources[votes.values < 0], minlength=len(votes.names)) > 0
        used = ~against[votes.sources] & (votes.values > 0) & ~evidence.excluded[votes.places]
        self.used = used & evidence.given[votes.places[used]].any()
        """Which votes are of approving sources, bool."""
        self.places, self.combination, self._at = _combinations(votes, self.used)
        self.labels = evidence.pairs.labels[self.places]
        self.labelled = labelled[evidence.pairs.queries[self.places]]

    @property
    def names(self) -> list[str]:
        """Of the approving sources."""
        votes = self.evidence.votes
        return [votes.names[source] for source in np.unique(votes.sources[self.used])]

    @property
    def others(self) -> PairVotes:
        """The votes of the other sources."""
        votes, kept = self.evidence.votes, ~self.used
        return replace(votes, places=votes.places[kept], sources=votes.sources[kept], values=votes.values[kept])

    def found(self, right: Values, lacking: Values) -> Approved:
        """What the given pairs say of them.

        right: float64 [n], the probability that each pair with evidence is relevant where it is given. lacking: float64 [L],
        how many relevant pairs of labelled queries are missing of each label, as the share that is given says.
        """
        if not len(self.places):
            return Approved(np.zeros(0), {})
        known = np.where(self.evidence.given, right, 0.0)
        given, hit = max(float(known.sum()), TINY), known[self.places]
        every, count = given + float(lacking.sum()), int(self.combination.max()) + 1
        votes = np.bincount(self.combination, self.labelled, count)
        hits = np.bincount(self.combination, hit, count) * every / given
        mean = min(hits.sum() / max(votes.sum(), 1.0), 1.0)
        precision = np.minimum((hits + PRIOR_VOTES * mean) / (votes + PRIOR_VOTES), 1.0)[self.combination]
        moved = expit(logit(np.clip(precision, TINY, 1 - TINY)) + self._moves(precision, hit, right, lacking))
        return Approved(np.where(self.labelled, moved, precision), self._of_sources(precision))

    def _moves(self, precision: Values, hit: Values, right: Values, lacking: Values) -> Values:
        """What to add to the log odds of each pair so that as many that are not given are right as missing ones are found."""
        pairs, given = self.evidence.pairs, self.evidence.given
        counts = np.bincount(pairs.labels[given], right[given], pairs.count)
        hits = np.bincount(self.labels, hit, pairs.count)
        recall = float(hits.sum()) / max(float(counts.sum()), TINY)
        missing, never = recall * float(lacking.sum()), counts == 0
        # Labels without any given pair are taken together, after all others.
        group = np.where(never, pairs.count, np.arange(pairs.count))[self.labels]
        open_ = np.flatnonzero(self.labelled & ~given[self.places])
        of_never = float(precision[open_[group[open_] == pairs.count]].sum())
        left = missing - min(missing, of_never)
        found = np.where(never, 0.0, lacking * (hits + PRIOR_VOTES * recall) / (counts + PRIOR_VOTES))
        found *= left / max(float(found.sum()), TINY)
        number = np.bincount(group[open_], minlength=pairs.count + 1)[:-1]
        mean = min(left / max(float(number[~never].sum()), 1.0), 1.0)
        totals = np.append(found + PRIOR_VOTES * mean, missing - left)
        padding = np.append(np.full(pairs.count, PRIOR_VOTES), 0.0)
        odds = logit(np.clip(precision[open_], TINY, 1 - TINY))
        padded = logit(np.clip(float(precision.mean()), TINY, 1 - TINY))
        low, high = np.full(len(totals), -MOST), np.full(len(totals), MOST)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            there = np.bincount(group[open_], expit(odds + middle[group[open_]]), len(totals))
            above = there + padding * expit(padded + middle) > totals
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        moves: Values = ((low + high) / 2)[group]
        return moves

    def _of_sources(self, precision: Values) -> dict[str, float]:
        votes = self.evidence.votes
        sources = votes.sources[self.used]
        right = np.bincount(sources, precision[self._at], len(votes.names))
        numbers = np.bincount(sources, minlength=len(votes.names))
        return {name: float(right[k] / numbers[k]) for k, name in enumerate(votes.names) if numbers[k]}


def _combinations(votes: PairVotes, used: Mask) -> tuple[Rows, Rows, Rows]:
    """The pairs that some votes name, ascending; the number of each one's combination; the pair that each vote is on."""
    places, at = np.unique(votes.places[used], return_inverse=True)
    sources, level = votes.sources[used], np.ceil(votes.values[used] * LEVELS).astype(np.int64)
    combination: Rows = np.zeros(len(places), np.int64)
    for source in np.unique(sources):
        strength = np.zeros(len(places), np.int64)
        of_source = sources == source
        np.maximum.at(strength, at[of_source], level[of_source])
        _, combination = np.unique(combination * (LEVELS + 1) + strength, return_inverse=True)
    return places, combination, at
