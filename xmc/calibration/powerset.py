"""Label-powerset conformal prediction: p-values of label sets, and the region of all sets that are not refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from xmc.calibration.candidates import JudgedCandidates
from xmc.calibration.dependency import LabelSets
from xmc.calibration.probabilities import Floats, blocks
from xmc.calibration.subsets import count_subsets, subsets_by_cost
from xmc.errors import InputError

__all__ = ["UNIT", "Powerset", "Region", "fit_powerset", "require_nonconformity", "true_costs"]

UNIT = 1_024
"""Costs are counted in whole units, this number of them to 1, so that regions are counted exactly."""
EXPLORED = 2_000
"""With label dependency at most this number of sets is looked at for each query."""
Ids = Sequence[int]
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Region(Generic[T]):
    """The label sets of a query that are not refused at a significance; sets of uids, where a retriever gives it.

    sets: the first sets, the most conforming first; an empty list is the set of no labels. p_values: of each listed set.
    count: number of sets of candidates in the region, listed or not; `at_most` is the same, except where label dependency left
    sets unexplored. counts: number of sets that stay in it with 0, 1, 2, ... further true labels that are no candidates.
    confidence: 1 - the second highest p-value. credibility: the p-value of the most conforming set, even where it is refused.
    """

    sets: list[list[T]]
    p_values: list[float]
    count: int
    at_most: int
    counts: tuple[int, ...]
    confidence: float
    credibility: float

    def named(self: Region[int], names: Sequence[U]) -> Region[U]:
        """A region of column numbers with the name of each column in its place."""
        values = {**vars(self), "sets": [[names[column] for column in label_set] for label_set in self.sets]}
        return Region(**values)


@dataclass(frozen=True)
class Powerset:
    """Inductive conformal prediction over label sets (Maltoudoglou et al., Pattern Recognition 122, 2022; there LP-ICP).

    The nonconformity of a label set Y for a query whose candidates C have probabilities o_j is the p-norm distance between Y
    and these, 0 for all other labels:

        α(Y) = ( Σ_{j∈C} |[j ∈ Y] - o_j|^p + |Y \\ C| )^(1/p) + λ h(Y)

    each term of the sum rounded to a multiple of 1/UNIT. Labels of Y that are no candidates cost 1 each, so that α and all that
    follows is the same however many labels there are. h(Y) is the label dependency, see LabelSets; λ = 0 leaves it out.
    With the α_i of n calibration queries' true sets, p(Y) = (#{i: α_i >= α(Y)} + 1) / (n + 1). The region at significance ε
    are all sets with p(Y) > ε; the true set is in it with probability at least 1 - ε.

    norm: p. scores: the α_i, float64 [n] ascending; of λ = 0 their p-th powers, which order sets the same. dependency: λ.
    label_sets: what h measures the distance to; None with λ = 0.
    """

    norm: float
    scores: Floats
    dependency: float = 0.0
    label_sets: LabelSets | None = None

    def costs(self, probabilities: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """What a candidate costs outside of, and inside of a set, in units; of any shape."""
        outside = np.rint(probabilities**self.norm * UNIT).astype(np.int64)
        inside = np.rint((1 - probabilities) ** self.norm * UNIT).astype(np.int64)
        return outside, inside

    def score(self, cost: int, ids: Ids) -> float:
        """The nonconformity of a set of labels `ids`, given its p-norm's cost in units."""
        if self.label_sets is None:
            return cost / UNIT
        return float((cost / UNIT) ** (1 / self.norm) + self.dependency * self.label_sets.distance(ids))

    def p_value(self, score: float) -> float:
        """Of a set with this nonconformity."""
        n = len(self.scores)
        return float((n - np.searchsorted(self.scores, score, side="left") + 1) / (n + 1))

    def threshold(self, significance: Fraction) -> float:
        """The highest nonconformity in the region. InputError where there are too few calibration queries for one."""
        n = len(self.scores)
        above = int(significance * (n + 1))  # p > ε where this number of calibration scores is as high
        if not above:
            raise InputError(
                f"A significance of {float(significance):g} needs {-(-1 // significance) - 1:,} calibration queries or more to "
                f"refuse any set, and {n:,} are there; take {1 / (n + 1):.2g} or more, or calibrate on more queries."
            )
        return float(self.scores[n - above])

    def region(
        self, probabilities: Floats, ids: npt.NDArray[np.int64], significance: Fraction, limit: int
    ) -> Region[int]:
        """The region of a query with candidates `ids` [K] of probabilities [K]: sets of column numbers, at most `limit`."""
        threshold = self.threshold(significance)
        outside, inside = self.costs(probabilities)
        likely = frozenset(np.flatnonzero(inside < outside).tolist())
        start = _Start(int(np.minimum(inside, outside).sum()), likely, np.abs(inside - outside).tolist(), ids)
        if self.label_sets is None:
            ranked = list(islice(self._cheapest(start), max(limit, 2)))
            budgets = list(range(int(threshold * UNIT) - start.cost, -1, -UNIT))
            counts = count_subsets(start.flips, budgets) or [0]
            at_most = counts[0]
            second = min([score for score, _ in ranked[1:2]] + [self.score(start.cost + UNIT, ())])
        else:
            ranked, complete = self._explored(start, threshold)
            counts = [sum(score <= threshold for score, _ in ranked)]
            budget = int(threshold**self.norm * UNIT) + 1 - start.cost  # a unit more, for rounding
            at_most = counts[0] if complete else count_subsets(start.flips, [budget])[0]
            second = min([score for score, _ in ranked[1:2]], default=np.inf)
        listed = [(score, columns) for score, columns in ranked[:limit] if score <= threshold]
        return Region(
            sets=[list(columns) for _, columns in listed],
            p_values=[self.p_value(score) for score, _ in listed],
            count=counts[0],
            at_most=at_most,
            counts=tuple(counts),
            confidence=1 - self.p_value(second),
            credibility=self.p_value(ranked[0][0]),
        )

    def _cheapest(self, start: _Start) -> Iterator[tuple[float, tuple[int, ...]]]:
        """Nonconformities and column numbers of sets of candidates, by what they cost."""
        for cost, flipped in subsets_by_cost(start.flips):
            columns = start.set_of(flipped)
            yield self.score(start.cost + cost, start.ids[list(columns)].tolist()), columns

    def _explored(self, start: _Start, threshold: float) -> tuple[list[tuple[float, tuple[int, ...]]], bool]:
        """With label dependency: sets by nonconformity, at least all in the region and the two best, and whether it is so.

        What a set costs without h is not above its nonconformity, so when that passes the threshold, and two sets are below
        it, nothing cheaper follows.
        """
        explored: list[tuple[float, tuple[int, ...]]] = []
        best = [np.inf, np.inf]
        for cost, flipped in islice(subsets_by_cost(start.flips), EXPLORED):
            lowest = ((start.cost + cost) / UNIT) ** (1 / self.norm)
            if lowest > max(threshold, best[1]):
                return sorted(explored), True
            columns = start.set_of(flipped)
            explored.append((self.score(start.cost + cost, start.ids[list(columns)].tolist()), columns))
            best = sorted([*best, explored[-1][0]])[:2]
        return sorted(explored), len(explored) == 2 ** len(start.flips)


@dataclass(frozen=True)
class _Start:
    """The set of likely candidates, which is the cheapest: what it costs, and how much more each flip of a candidate does."""

    cost: int
    likely: frozenset[int]
    flips: list[int]
    ids: npt.NDArray[np.int64]

    def set_of(self, flipped: tuple[int, ...]) -> tuple[int, ...]:
        """Column numbers of the set that flips lead to, ascending."""
        return tuple(sorted(self.likely ^ set(flipped)))


def fit_powerset(
    probabilities: Floats,
    judged: JudgedCandidates,
    true_ids: Sequence[Ids],
    norm: float,
    dependency: float = 0.0,
    label_sets: LabelSets | None = None,
) -> Powerset:
    """From calibration queries. true_ids: the labels of each, in any order; only label dependency looks at them.

    InputError as `require_nonconformity`.
    """
    require_nonconformity(norm, dependency)
    model = Powerset(norm, np.zeros(0), dependency, label_sets if dependency else None)
    scores = [
        model.score(cost, ids) for cost, ids in zip(true_costs(model, probabilities, judged), true_ids, strict=True)
    ]
    return Powerset(norm, np.sort(np.array(scores, np.float64)), dependency, model.label_sets)


def true_costs(model: Powerset, probabilities: Floats, judged: JudgedCandidates) -> list[int]:
    """What the true set of each query costs, in units."""
    costs = []
    for rows in blocks(*probabilities.shape):
        outside, inside = model.costs(probabilities[rows])
        costs.append(np.where(judged.hits[rows], inside, outside).sum(axis=1) + UNIT * judged.missed[rows])
    return [int(cost) for cost in np.concatenate(costs)]


def require_nonconformity(norm: float, dependency: float) -> None:
    """Raise InputError for a norm below 1, and a negative label dependency."""
    if not (np.isfinite(norm) and norm >= 1):
        raise InputError(f"norm must be at least 1, but is {norm}.")
    if not (np.isfinite(dependency) and dependency >= 0):
        raise InputError(f"label dependency must be at least 0, but is {dependency}.")
