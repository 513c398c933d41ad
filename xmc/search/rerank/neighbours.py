"""Features of a memory: how the nearest remembered queries speak for a label."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xmc.arrays import Ids
from xmc.errors import InputError
from xmc.search.memory.votes import NeighbourVotes, VotingRule
from xmc.search.rerank.features import Feature, FeatureContext, FeatureValues
from xmc.search.state import SearchState

__all__ = ["NeighbourFeature"]

TEMPERATURE = 0.05
"""Of the votes, whatever that of the memory's rule is."""


class NeighbourFeature(Feature):
    """What the neighbours that the stage `memory` has found say of each candidate.

    votes: the sum of the shares of those that the label is true of. voters: their number. nearest: similarity of the nearest
    neighbour of all. nearest_voter: that of the nearest one that the label is true of, NaN for none.
    """

    name = "neighbours"
    columns = ("votes", "voters", "nearest", "nearest_voter")

    @classmethod
    def from_context(cls, context: FeatureContext) -> NeighbourFeature:
        """See Feature."""
        if context.labels.memory is None:
            raise InputError(
                "The feature 'neighbours' needs a memory of queries; give the retriever one with xmc.fit_memory."
            )
        return cls()

    def values(self, state: SearchState, ids: Ids) -> FeatureValues:
        """See Feature. NaN for all where nothing is remembered."""
        values = np.full((*ids.shape, len(self.columns)), np.nan, np.float32)
        memory = state.labels.memory
        if state.recalled is None or memory is None or not ids.size:
            return values
        similarities, rows = state.recalled
        rule = VotingRule(max(1, rows.shape[1]), TEMPERATURE, 1.0)
        votes = NeighbourVotes.from_neighbours(memory, similarities, rows, rule)
        places, said = _places(ids, votes)
        by_label = [np.zeros(ids.size), np.zeros(ids.size), np.full(ids.size, -np.inf)]
        np.add.at(by_label[0], places, votes.values[said])
        np.add.at(by_label[1], places, 1)
        np.maximum.at(by_label[2], places, similarities[votes.queries[said], votes.columns[said]])
        total, voters, nearest_voter = (array.reshape(ids.shape) for array in by_label)
        values[..., 0], values[..., 1] = total, voters
        values[..., 2] = np.where(np.isfinite(similarities[:, :1]), similarities[:, :1], np.nan)
        values[..., 3] = np.where(voters > 0, nearest_voter, np.nan)
        return values


def _places(ids: Ids, votes: NeighbourVotes) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """For votes whose label is a candidate of their query: its place among all candidates, and which votes they are."""
    width = 1 + max(int(ids.max(initial=0)), int(votes.ids.max(initial=0)))
    keys = np.where(ids >= 0, np.arange(len(ids))[:, None] * width + ids, -1).ravel()
    order = np.argsort(keys, kind="stable")
    sought = votes.queries * width + votes.ids
    found = np.minimum(np.searchsorted(keys[order], sought), len(order) - 1)
    said = np.flatnonzero(keys[order][found] == sought)
    return order[found[said]], said
