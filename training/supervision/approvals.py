"""How probable pairs are that are voted for by sources that never vote against any."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from xmc.arrays import Mask, Rows
from xmc.training.supervision.evidence import PairEvidence, PairVotes
from xmc.training.supervision.totals import moves_to_totals

__all__ = ["Approvals"]

Values = npt.NDArray[np.float64]
LEVELS = 4
"""Votes of values in (0, 1] are taken to be of this many strengths."""
PRIOR_VOTES = 2.0
"""Votes of the mean that are added to those of each combination, and of each label."""
TINY = 1e-12


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

    def precisions(self, right: Values, lacking: Values) -> dict[str, float]:
        """The share of each source's votes that is right, by its name; see `probabilities`."""
        votes, precision = self.evidence.votes, self._precision(right, lacking)
        sources = votes.sources[self.used]
        yes = np.bincount(sources, precision[self._at], len(votes.names))
        numbers = np.bincount(sources, minlength=len(votes.names))
        return {name: float(yes[k] / numbers[k]) for k, name in enumerate(votes.names) if numbers[k]}

    def probabilities(self, right: Values, lacking: Values) -> Values:
        """That each pair is relevant if it is not given, float64 [m].

        right: float64 [n], the probability that each pair with evidence is relevant where it is given. lacking: float64 [L],
        how many relevant pairs of labelled queries are missing of each label, as the share that is given says.
        """
        precision = self._precision(right, lacking)
        pairs, given = self.evidence.pairs, self.evidence.given
        counts = np.bincount(pairs.labels[given], right[given], pairs.count)
        hits = np.bincount(self.labels, self._hits(right), pairs.count)
        recall = float(hits.sum()) / max(float(counts.sum()), TINY)
        missing, never = recall * float(lacking.sum()), counts == 0
        # Labels without any given pair are taken together, after all others.
        group = np.where(never, pairs.count, np.arange(pairs.count))[self.labels]
        open_ = np.flatnonzero(self.labelled & ~given[self.places])
        of_never = float(precision[open_[group[open_] == pairs.count]].sum())
        left = missing - min(missing, of_never)
        found = np.where(never, 0.0, lacking * (hits + PRIOR_VOTES * recall) / (counts + PRIOR_VOTES))
        found *= left / max(float(found.sum()), TINY)
        others = int((group[open_] < pairs.count).sum())
        totals = np.append(found + PRIOR_VOTES * min(left / max(others, 1), 1.0), missing - left)
        odds = logit(np.clip(np.append(precision, precision.mean() if len(precision) else 0.5), TINY, 1 - TINY))
        moves = moves_to_totals(
            np.append(odds[open_], np.full(pairs.count, odds[-1])),
            np.append(group[open_], np.arange(pairs.count)),
            totals,
            np.append(np.ones(len(open_)), np.full(pairs.count, PRIOR_VOTES)),
        )
        return np.where(self.labelled, expit(odds[:-1] + moves[group]), precision)

    def _precision(self, right: Values, lacking: Values) -> Values:
        """How probable it is that a vote of each pair's combination is right, float64 [m]."""
        given, hit = max(float(right[self.evidence.given].sum()), TINY), self._hits(right)
        times, count = 1 + float(lacking.sum()) / given, int(self.combination.max(initial=0)) + 1
        votes = np.bincount(self.combination, self.labelled, count)
        hits = np.bincount(self.combination, hit, count) * times
        mean = min(float(hits.sum()) / max(float(votes.sum()), 1.0), 1.0)
        precision: Values = np.minimum((hits + PRIOR_VOTES * mean) / (votes + PRIOR_VOTES), 1.0)[self.combination]
        return precision

    def _hits(self, right: Values) -> Values:
        """The probability that each pair is given and right, float64 [m]."""
        return np.where(self.evidence.given, right, 0.0)[self.places]


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
