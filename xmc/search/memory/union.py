"""Candidates of a search joined with the labels that neighbours voted for, scores and votes added exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xmc.arrays import Embeddings, Ids, Rows
from xmc.search.memory.votes import Floats, NeighbourVotes
from xmc.search.stages import SearchState

__all__ = ["with_votes"]

SCORED = 65_536
"""Pairs of a query and a label that are scored at a time."""


@dataclass(frozen=True)
class _Tally:
    """Votes summed by query and label. of_candidates: float64 [n, m]. queries, ids, votes: of labels that are no candidates."""

    of_candidates: Floats
    queries: Rows
    ids: Ids
    votes: Floats

    @classmethod
    def from_votes(cls, candidates: Ids, votes: NeighbourVotes) -> _Tally:
        """candidates: int64 [n, m], -1 for none."""
        width = 1 + max(int(candidates.max(initial=0)), int(votes.ids.max(initial=0)))
        there = candidates >= 0
        keys = (np.arange(len(candidates))[:, None] * width + candidates)[there]
        keys = np.concatenate([keys, votes.queries * width + votes.ids])
        values = np.concatenate([np.zeros(len(keys) - len(votes.ids)), votes.values])
        order = np.argsort(
            keys, kind="stable"
        )  # of equal keys the candidate's comes first, then the nearest neighbour's
        ordered = keys[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        sums = np.add.reduceat(values[order], starts) if len(starts) else values[:0]
        first = order[starts]
        known = first < there.sum()
        of_candidates = np.zeros(there.sum())
        of_candidates[first[known]] = sums[known]
        spread = np.zeros(candidates.shape)
        spread[there] = of_candidates
        new = ordered[starts[~known]]
        return cls(spread, new // width, new % width, sums[~known])

    def matrix(self, count: int) -> tuple[Ids, Floats]:
        """Labels that are no candidates, and their votes, a row for each of `count` queries, filled up with -1 and 0."""
        lengths = np.bincount(self.queries, minlength=count)
        columns = np.arange(len(self.queries)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        shape = count, int(lengths.max(initial=0))
        ids, votes = np.full(shape, -1), np.zeros(shape)
        ids[self.queries, columns], votes[self.queries, columns] = self.ids, self.votes
        return ids, votes


def with_votes(state: SearchState, votes: NeighbourVotes) -> SearchState:
    """The best labels by score and votes together, as many as there were candidates, best first.

    Labels that only votes name are scored exactly, so that among all labels those of the highest sums are found. Labels that
    are gone, or that the request does not allow, get no votes. Equal sums keep the order of the candidates, then of ids.
    """
    candidates, scores = state.ranked()
    tally = _Tally.from_votes(candidates, votes)
    new_ids, new_votes = tally.matrix(len(candidates))
    allowed = state.allows(new_ids)
    new_ids = np.where(allowed, new_ids, -1)
    new_scores = np.full(new_ids.shape, -np.inf, np.float32)
    if state.composed is None:
        new_scores[allowed] = _scores(state, np.nonzero(allowed)[0], new_ids[allowed])
    elif allowed.any():
        new_scores = state.scores_of(new_ids)
    ids = np.concatenate([candidates, new_ids], axis=1)
    sums = np.concatenate([scores + tally.of_candidates, new_scores + new_votes], axis=1).astype(np.float32)
    explanation = state.explanation
    if explanation is not None:
        explanation = np.concatenate([explanation, np.full(new_ids.shape, None, object)], axis=1)
    order = np.argsort(-sums, axis=1, kind="stable")[:, : candidates.shape[1]]
    joined = replace(state, ids=ids, scores=sums, explanation=explanation).ordered(order)
    return replace(joined, allowed_ids=joined.ids) if state.allowed_ids is candidates else joined


def _scores(state: SearchState, queries: Rows, ids: Ids) -> Embeddings:
    """The exact score of each pair of a query and a label id, float32 [pairs]; -inf for labels that are not searched."""
    embeddings = state.encoded()
    parts = [
        replace(state, embeddings=embeddings[queries[start : start + SCORED]]).scores_of(
            ids[start : start + SCORED, None]
        )
        for start in range(0, len(ids), SCORED)
    ]
    return np.concatenate([np.zeros(0, np.float32), *(part[:, 0] for part in parts)])
