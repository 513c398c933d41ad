"""All pairs of the training queries that something is known of, and what."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from xmc.arrays import Mask, Rows, places_of
from xmc.data.evidence import CandidateSets, LabelBags, Votes
from xmc.training.supervision.pair_entries import PairEntries

__all__ = ["CountedGroups", "PairEvidence", "PairVotes"]

NO_PLACES: Rows = np.zeros(0, np.int64)


@dataclass(frozen=True)
class CountedGroups:
    """m groups of pairs, between `least` and `most` of them true: those of group g are places[indptr[g] : indptr[g + 1]].

    places: int64 [t], of pairs of the evidence. indptr: int64 [m + 1]. least, most: float64 [m].
    """

    places: Rows = field(default_factory=lambda: NO_PLACES)
    indptr: Rows = field(default_factory=lambda: np.zeros(1, np.int64))
    least: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    most: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        """Number of groups."""
        return len(self.least)


@dataclass(frozen=True)
class PairVotes:
    """n votes: of source sources[v] on the pair places[v] of the evidence, of value values[v] in [-1, 1].

    places: int64 [n]. sources: int32 [n], positions in `names`. values: float32 [n].
    """

    places: Rows = field(default_factory=lambda: NO_PLACES)
    sources: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    values: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairEvidence:
    """The n pairs of N queries and L labels that something is known of, ascending by query and label.

    pairs: what the data set's lists of labels and its filter say, as entries; those of pairs that are only voted on or counted
    have a pull of 0 and a push of 1. rejected: bool [n], pairs that were judged not relevant.
    """

    pairs: PairEntries
    rejected: Mask
    votes: PairVotes
    groups: CountedGroups

    @classmethod
    def of(
        cls,
        given: PairEntries,
        votes: Votes | None = None,
        sets: CandidateSets | None = None,
        bags: LabelBags | None = None,
    ) -> PairEvidence:
        """From what is given and the evidence beside it."""
        vote_keys = NO_PLACES if votes is None else votes.queries * given.count + votes.labels
        counted, indptr, least, most = _counted(sets, bags, given.count)
        keys = np.unique(np.concatenate([given.keys, vote_keys, counted]))
        pull, push = np.zeros(len(keys), np.float32), np.ones(len(keys), np.float32)
        places = np.searchsorted(keys, given.keys)
        pull[places], push[places] = given.pull, given.push
        by_pair = PairVotes()
        if votes is not None:
            by_pair = PairVotes(np.searchsorted(keys, vote_keys), votes.sources, votes.values, votes.names)
        groups = CountedGroups(np.searchsorted(keys, counted), indptr, least, most)
        rejected = np.zeros(len(keys), bool)
        rejected[places] = given.push > 0
        return cls(PairEntries.from_keys(keys, pull, push, len(given), given.count), rejected, by_pair, groups)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs.labels)

    @property
    def given(self) -> Mask:
        """Pairs that the data set gives as positives, bool [n]."""
        given: Mask = self.pairs.pull > 0
        return given

    @property
    def excluded(self) -> Mask:
        """Pairs that count nowhere, bool [n]."""
        excluded: Mask = (self.pairs.pull == 0) & (self.pairs.push == 0)
        return excluded

    @property
    def counted(self) -> Mask:
        """Pairs that are in some group, bool [n]."""
        counted = np.zeros(len(self), bool)
        counted[self.groups.places] = True
        return counted

    @property
    def voted(self) -> Mask:
        """Pairs that some source votes on, bool [n]."""
        voted = np.zeros(len(self), bool)
        voted[self.votes.places] = True
        return voted


def _counted(
    sets: CandidateSets | None, bags: LabelBags | None, labels: int
) -> tuple[Rows, Rows, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The number of each pair of each group, where groups begin, and how many pairs are true at least and at most."""
    keys, sizes, least, most = [NO_PLACES], [NO_PLACES], [np.zeros(0)], [np.zeros(0)]
    if sets is not None:
        keys.append(np.repeat(sets.queries, sets.sizes) * labels + sets.labels)
        sizes.append(sets.sizes)
        least.append(sets.least.astype(np.float64))
        most.append(sets.most.astype(np.float64))
    if bags is not None:
        bag = np.repeat(np.arange(len(bags)), np.diff(bags.label_indptr))
        places, indptr = places_of(bags.query_indptr, bag)
        of_label = np.repeat(bags.labels, np.diff(indptr))
        keys.append(bags.queries[places] * labels + of_label)
        sizes.append(np.diff(indptr))
        least.append(bags.counts.astype(np.float64))
        most.append(bags.counts.astype(np.float64))
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)
    return np.concatenate(keys), indptr, np.concatenate(least), np.concatenate(most)
