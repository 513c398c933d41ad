"""Votes of remembered queries: how much the nearest ones of a query speak for each label."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.arrays import Ids, Rows
from xmc.errors import InputError
from xmc.search.memory.queries import QueryMemory

__all__ = ["NeighbourVotes", "VotingRule"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class VotingRule:
    """How remembered queries vote: a label's score grows by `weight` times the votes for it.

    The `neighbours` nearest queries n of a query have shares e^(s_n / temperature) / Σ e^(s / temperature), s their
    similarities; a label's votes are the sum of the shares of those that it is true of, times p^-rarity, p the label's
    propensity in the memory. With `nothing`, one more neighbour of that similarity stands in the sum and votes for no label, so
    that distant neighbours weigh little.

    Nearest-neighbour votes beside a learned score: Khandelwal et al., "Generalization through memorization: nearest neighbor
    language models" (ICLR 2020); propensities: Jain et al. (KDD 2016).
    Raises InputError for numbers out of range.
    """

    neighbours: int = 10
    temperature: float = 0.05
    weight: float = 0.1
    rarity: float = 0.0
    nothing: float | None = None

    def __post_init__(self) -> None:
        for name, allowed, words in (
            ("neighbours", self.neighbours >= 1, "at least 1"),
            ("temperature", 0 < self.temperature < np.inf, "a number above 0"),
            ("weight", 0 <= self.weight < np.inf, "a number of at least 0"),
            ("rarity", 0 <= self.rarity < np.inf, "a number of at least 0"),
            ("nothing", self.nothing is None or np.isfinite(self.nothing), "a similarity, or None"),
        ):
            if not allowed:
                raise InputError(f"{name} of a memory must be {words}, but is {getattr(self, name)!r}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def shares(self, similarities: Floats) -> Floats:
        """The share of each neighbour [n, k] in the votes, 0 for one that is not there (-inf)."""
        if not similarities.shape[1]:
            return similarities
        nothing = -np.inf if self.nothing is None else self.nothing
        highest = np.maximum(similarities.max(axis=1, keepdims=True), nothing)
        highest = np.where(np.isfinite(highest), highest, 0.0)
        powers = np.exp((similarities - highest) / self.temperature)
        total = powers.sum(axis=1, keepdims=True) + np.exp((nothing - highest) / self.temperature)
        shares: Floats = np.divide(powers, total, out=np.zeros_like(powers), where=total > 0)
        return shares


@dataclass(frozen=True)
class NeighbourVotes:
    """What neighbours of n queries add to scores: one entry for each neighbour and each of its labels.

    queries: which query, ascending. ids: of the labels, int64. values: float64. rows: the remembered query.
    columns: the place of that one among the neighbours.
    """

    queries: Rows
    ids: Ids
    values: Floats
    rows: Rows
    columns: Rows

    @classmethod
    def from_neighbours(cls, memory: QueryMemory, similarities: Floats, rows: Rows, rule: VotingRule) -> NeighbourVotes:
        """Of neighbours [n, k] as from `QueryMemory.nearest`."""
        shares = rule.weight * rule.shares(similarities)
        places = np.flatnonzero((rows.ravel() >= 0) & (shares.ravel() > 0))
        neighbours = rows.ravel()[places]
        lengths = memory.ends.values[neighbours] - memory.starts[neighbours]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        ids = memory.ids.values[np.repeat(memory.starts[neighbours], lengths) + within]
        values = np.repeat(shares.ravel()[places], lengths)
        if rule.rarity:
            values = values * memory.propensities[ids] ** -rule.rarity
        queries, columns = np.divmod(places, max(1, rows.shape[1]))
        repeated = (np.repeat(column, lengths) for column in (queries, neighbours, columns))
        queries, neighbours, columns = repeated
        return cls(queries, ids, values, neighbours, columns)
