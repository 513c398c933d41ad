"""How remembered queries should vote, chosen on judged queries that are not among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from xmc.arrays import Embeddings, Ids, Mask, Rows
from xmc.search.memory.queries import QueryMemory
from xmc.search.memory.votes import NeighbourVotes, VotingRule
from xmc.search.stages import SearchState

__all__ = ["DEPTH", "Trials", "choose_rule", "rules_to_try"]

Floats: TypeAlias = npt.NDArray[np.float64]

DEPTH = 5
"""Measures look at this number of labels."""
NEIGHBOURS = 10
TEMPERATURES = 0.05, 0.1, 0.2
RARITIES = 0.0, 0.1, 0.2, 0.3, 0.4
WEIGHTS = 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2
"""What is tried, for cosines. Twenty neighbours were never better than ten on wordnet-8k and LF-WordNet."""
DISTANT = 0.05, 0.25
"""Shares of the queries whose neighbours weigh half or less by a `VotingRule.nothing` that is tried; and none is tried too."""
CERTAIN = 2.0
"""A gain counts from this number of its standard errors on."""
GAINED, KEPT, KEPT_IF_POSSIBLE = ("P@5", "nDCG@5"), ("P@1", "PSP@5"), ("PSP@1",)
"""The measures whose mean is to be high, those that must not fall, and those that must not wherever something gains then."""


@dataclass(frozen=True)
class Trials:
    """Judged queries with all that votes need: each rule is then tried in milliseconds.

    similarities: of the nearest remembered queries [n, k]. votes: of these, an entry for each of their labels. rarities: the
    propensity of each entry's label. places: where in [n, M] it counts. scores: float32 [n, M] of each query's best labels and
    of all that its neighbours may vote for, -inf for none. gain: float64 [n, M], 1 / propensity of true labels, 0 for others.
    ideal: float64 [n], what nDCG@5 divides by. possible: float64 [n, 2], what PSP@1 and PSP@5 divide by.
    """

    similarities: Floats
    votes: NeighbourVotes
    rarities: Floats
    places: Rows
    scores: Embeddings
    gain: Floats
    ideal: Floats
    possible: Floats

    @classmethod
    def from_search(
        cls, state: SearchState, memory: QueryMemory, vectors: Embeddings, truth: list[Ids], excluded: list[Ids]
    ) -> Trials:
        """state: after candidates. vectors: of its queries, in the space of the memory. truth, excluded: ids of labels."""
        similarities, rows = memory.nearest(vectors, NEIGHBOURS)
        equal = np.where(rows >= 0, 0.0, -np.inf)
        votes = NeighbourVotes.from_neighbours(memory, equal, rows, VotingRule(NEIGHBOURS, 1.0, 1.0))
        candidates, _ = state.ranked()
        table = _PairTable.from_pairs(candidates, votes, state.labels.next_id)
        weights = 1 / _propensities(memory, state.labels.next_id)
        ids = np.where(table.holds(excluded), -1, table.ids)
        true = table.holds(truth) & (ids >= 0)
        best = [np.sort(weights[listed[listed >= 0]])[::-1][:DEPTH] for listed in truth]
        return cls(
            similarities,
            votes,
            memory.propensities[votes.ids],
            table.places(votes),
            state.scores_of(ids),
            np.where(true, weights[np.maximum(ids, 0)], 0.0),
            np.array([_DISCOUNTS[: max(1, len(listed))].sum() for listed in truth]),
            np.array([[values[:1].sum(), values.sum()] for values in best]).reshape(-1, 2),
        )

    def measures(self, rule: VotingRule | None) -> dict[str, Floats]:
        """Of each query, in percent; without votes for None. The mean of PSP's is that of its numerator and denominator."""
        sums = self.scores.astype(np.float64)
        if rule is not None:
            shares = rule.weight * rule.shares(self.similarities)[self.votes.queries, self.votes.columns]
            values = shares * self.rarities**-rule.rarity
            sums = sums + np.bincount(self.places, values, minlength=sums.size).reshape(sums.shape)
        best = np.argsort(-sums, axis=1, kind="stable")[:, :DEPTH]
        gains = np.take_along_axis(self.gain, best, 1)
        hits, possible = gains > 0, np.maximum(self.possible.mean(axis=0), np.finfo(float).tiny)
        return {
            "P@1": 100.0 * hits[:, 0],
            "P@5": 100 * hits.sum(axis=1) / DEPTH,
            "nDCG@5": 100 * (hits * _DISCOUNTS[: hits.shape[1]]).sum(axis=1) / self.ideal,
            "PSP@1": 100 * gains[:, 0] / possible[0],
            "PSP@5": 100 * gains.sum(axis=1) / possible[1],
        }


@dataclass(frozen=True)
class _PairTable:
    """Pairs of a query and a label id, ascending, as keys query · size + id; ids: a row for each query, filled up with -1."""

    keys: Rows
    size: int
    ids: Ids

    @classmethod
    def from_pairs(cls, candidates: Ids, votes: NeighbourVotes, size: int) -> _PairTable:
        """Of candidates [n, m] and of what is voted for. size: above all ids."""
        rows = np.broadcast_to(np.arange(len(candidates))[:, None], candidates.shape)[candidates >= 0]
        keys = np.concatenate([rows * size + candidates[candidates >= 0], votes.queries * size + votes.ids])
        keys = np.unique(keys)
        queries = keys // size
        columns = np.arange(len(keys)) - np.searchsorted(queries, queries)
        ids = np.full((len(candidates), int(columns.max(initial=-1)) + 1), -1)
        ids[queries, columns] = keys % size
        return cls(keys, size, ids)

    def places(self, votes: NeighbourVotes) -> Rows:
        """Where in the flat `ids` each entry is, int64."""
        queries = votes.queries
        found: Rows = np.searchsorted(self.keys, queries * self.size + votes.ids)
        first: Rows = np.searchsorted(self.keys, queries * self.size)
        places: Rows = queries * self.ids.shape[1] + found - first
        return places

    def holds(self, lists: list[Ids]) -> Mask:
        """Which ids are on the list of their query, bool as `ids`."""
        mask = np.zeros(self.ids.shape, bool)
        for row, listed in enumerate(lists):
            mask[row] = np.isin(self.ids[row], listed)
        return mask


_DISCOUNTS = 1 / np.log2(np.arange(2, DEPTH + 2))


def rules_to_try(similarities: Floats, unit: float = 1.0) -> Iterator[VotingRule]:
    """All rules of the grid for queries with these nearest similarities. unit: of scores and similarities, 1 for cosines."""
    for temperature, rarity in product(TEMPERATURES, RARITIES):
        scaled = temperature * unit
        highest = similarities.max(axis=1)
        nearness = highest + scaled * np.log(np.exp((similarities - highest[:, None]) / scaled).sum(axis=1))
        for nothing in (None, *(float(np.quantile(nearness, share)) for share in DISTANT)):
            for weight in WEIGHTS:
                yield VotingRule(NEIGHBOURS, scaled, weight * unit, rarity, nothing)


def choose_rule(trials: Trials, unit: float = 1.0) -> tuple[VotingRule, bool]:
    """The rule of the highest mean of P@5 and nDCG@5 by which P@1 and PSP@5, and if possible PSP@1, do not fall.

    The second value says whether there is such a rule, and its gain is certain; without, the rule is that of the highest mean.
    """
    before = trials.measures(None)
    tried = []
    for rule in rules_to_try(trials.similarities, unit):
        after = trials.measures(rule)
        difference = {name: after[name] - before[name] for name in before}
        gain = np.mean([difference[name] for name in GAINED], axis=0)
        fallen = [name for name in (*KEPT, *KEPT_IF_POSSIBLE) if difference[name].mean() < 0]
        certain = gain.mean() > CERTAIN * gain.std() / np.sqrt(len(gain))
        tried.append((rule, gain.mean(), certain, set(fallen)))
    for allowed in (set[str](), set(KEPT_IF_POSSIBLE)):
        good = [(rule, gain) for rule, gain, certain, fallen in tried if certain and fallen <= allowed]
        if good:
            return max(good, key=lambda pair: pair[1])[0], True
    return max(tried, key=lambda entry: entry[1])[0], False


def _propensities(memory: QueryMemory, size: int) -> Floats:
    """Of all label ids; of those that no query has, as small as that of one that a single query has."""
    known = memory.propensities
    every = np.full(max(size, len(known)), known[known > 0].min(initial=1.0))
    every[: len(known)] = known
    return every
