"""Which training queries become a test or validation split: drawn so that no label loses its last query in training.

Queries are drawn by strata, each query in that of its rarest label, so that a rare label is spread over the splits as its
number of queries allows; after iterative stratification, in one pass in place of one a label: Sechidis, Tsoumakas & Vlahavas,
"On the Stratification of Multi-Label Data" (ECML-PKDD 2011).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix

from xmc.arrays import Mask, Rows
from xmc.errors import ConfigError, DataError

__all__ = ["TRAIN", "DrawnSplits", "Splitting", "draw_splits", "groups_of_values", "require_new_splits"]

TRAIN = "train"
"""The split that queries are drawn from."""
STREAMS = {"test": 1, "validation": 2}
"""Of random numbers, one for each new split."""


@dataclass(frozen=True)
class Splitting:
    """What part of the training queries becomes what.

    test, validation: shares of the training queries, in [0, 1); 0 for no such split. seed: of the draw. group: a column of the
    training queries; queries of one value stay together.

    Raises ConfigError for shares out of range, or that leave nothing to train on, or are both 0.
    """

    test: float = 0.0
    validation: float = 0.0
    seed: int = 0
    group: str | None = None

    def __post_init__(self) -> None:
        for name, share in (("test", self.test), ("validation", self.validation)):
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
                raise ConfigError(f"The share {name} must be a number from 0 to below 1, but is {share!r}.")
        if not 0 < self.test + self.validation < 1:
            raise ConfigError(
                f"The shares test {self.test:g} and validation {self.validation:g} must be above 0 and leave some queries to "
                f"train on; for example test 0.1 and validation 0.1."
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"The seed must be a whole number of at least 0, but is {self.seed!r}.")

    @property
    def shares(self) -> dict[str, float]:
        """The shares above 0 by split."""
        return {name: share for name, share in (("test", self.test), ("validation", self.validation)) if share > 0}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for dataset.json."""
        return {**self.shares, "seed": self.seed, **({} if self.group is None else {"group": self.group})}


@dataclass(frozen=True)
class DrawnSplits:
    """The training queries by split, and how well the draw went.

    rows: ascending row numbers of the training queries by split, "train" first. wanted: number of queries asked for, of the new
    splits. labels: number of labels with a positive query, by split. tied: number of labels whose only query, or group of
    queries, is kept in train. groups: number of groups; 0 where queries were drawn one by one.
    """

    rows: dict[str, Rows]
    wanted: dict[str, int]
    labels: dict[str, int]
    tied: int
    groups: int = 0

    def sentences(self) -> list[str]:
        """What was reached, for people."""
        drawn = [name for name in self.rows if name != TRAIN]
        found = ", ".join(f"{self.labels[name]:,} in {name}" for name in self.rows)
        unit = "group of queries" if self.groups else "query"
        sentences = [f"labels with a query: {found}; each of them has one in train"]
        if self.tied:
            sentences.append(f"{self.tied:,} labels have one {unit} only, which stays in train")
        for name in drawn:
            reached = len(self.rows[name])
            if reached < self.wanted[name]:
                sentences.append(
                    f"{name} has {reached:,} queries where {self.wanted[name]:,} were asked for: with more, a label would have "
                    f"none in train{', or a group would be cut' if self.groups else ''}"
                )
            elif reached > self.wanted[name]:
                sentences.append(
                    f"{name} has {reached:,} queries where {self.wanted[name]:,} were asked for: no group is smaller"
                )
        return sentences


def require_new_splits(name: str, splits: Collection[str], splitting: Splitting) -> None:
    """DataError where a data set of this name and these splits has no split train, or a new one already."""
    if TRAIN not in splits:
        raise DataError(f"The data set {name!r} has no split train to draw from, only {', '.join(splits) or 'none'}.")
    there = next((split for split in splitting.shares if split in splits), None)
    if there is not None:
        raise DataError(f"The data set {name!r} has a split {there} already; leave its share out.")


@dataclass
class _Units:
    """What is drawn: groups of queries, or single ones.

    counts: CSR int64 [units, L], number of queries of each label. sizes: number of queries, int64 [units].
    """

    counts: csr_matrix
    sizes: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64] = field(init=False)
    """Queries of each label that are still in train, int64 [L]."""

    def __post_init__(self) -> None:
        self.left = np.asarray(self.counts.sum(axis=0)).ravel().astype(np.int64)

    def movable(self) -> npt.NDArray[np.bool_]:
        """Units without which every label of theirs has a query in train."""
        owners = np.repeat(np.arange(len(self.sizes)), np.diff(self.counts.indptr))
        last = self.left[self.counts.indices] <= self.counts.data
        movable = np.ones(len(self.sizes), bool)
        movable[owners[last]] = False
        return movable

    def strata(self) -> npt.NDArray[np.int64]:
        """The rarest label of each unit, L for one without labels, int64 [units]."""
        labels = self.counts.shape[1]
        rank = np.empty(labels + 1, np.int64)
        order = np.argsort(self.left, kind="stable")
        rank[order], rank[labels] = np.arange(labels), labels
        lengths = np.diff(self.counts.indptr)
        rarest = np.full(len(self.sizes), labels, np.int64)
        starts = self.counts.indptr[:-1][lengths > 0]
        if len(starts):
            rarest[lengths > 0] = np.minimum.reduceat(rank[self.counts.indices], starts)
        return rarest

    def take(self, unit: int) -> bool:
        """Take a unit out of train, unless a label loses its last query there; whether it was taken."""
        place = slice(self.counts.indptr[unit], self.counts.indptr[unit + 1])
        labels, counts = self.counts.indices[place], self.counts.data[place]
        rest = self.left[labels] - counts
        if len(rest) and rest.min() < 1:
            return False
        self.left[labels] = rest
        return True


def draw_splits(
    positives: csr_matrix, splitting: Splitting, groups: Rows | None = None, labelled: Mask | None = None
) -> DrawnSplits:
    """Draw queries from the training split; the same arguments give the same rows on every machine.

    positives: CSR [n, L]. groups: the number of each query's group, int64 [n]. labelled: bool [n], False for queries that stay
    in train, as do their groups: nothing could be judged by them. Shares are of those that may be drawn.

    Every label with a positive keeps one in train. Raises DataError where not one query can be taken for a split.
    """
    queries = positives.shape[0]
    units_of = np.arange(queries) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = _units(positives, units_of)
    single = np.asarray((units.counts > 0).sum(axis=0)).ravel() == 1
    at = np.zeros(len(units.sizes), np.int64)
    drawable = np.ones(len(units.sizes), bool)
    if labelled is not None:
        drawable[units_of[~labelled]] = False
        queries = int(labelled.sum())
    wanted: dict[str, int] = {}
    for number, (name, share) in enumerate(splitting.shares.items(), 1):
        wanted[name] = max(1, round(share * queries))
        random = np.random.default_rng([splitting.seed, STREAMS[name]])
        taken = _draw(units, np.flatnonzero((at == 0) & drawable), wanted[name], random)
        if not len(taken):
            raise DataError(
                f"No {'query' if groups is None else 'group'} of the {queries:,} queries in train can become {name}: each has "
                f"the last positive of a label, or is half of the queries. Give more data, or train without such a split."
            )
        at[taken] = number
    at_query = at[units_of]
    rows = {name: np.flatnonzero(at_query == number) for number, name in enumerate([TRAIN, *wanted])}
    labels = {name: int(np.count_nonzero(np.bincount(positives[of].indices))) for name, of in rows.items()}
    return DrawnSplits(rows, wanted, labels, int(single.sum()), 0 if groups is None else len(units.sizes))


def groups_of_values(values: pa.ChunkedArray | pa.Array) -> Rows:
    """A number for each value, the same for the same value, int64 [n]; each null is a group of its own."""
    column = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    codes = pc.dictionary_encode(column)
    if isinstance(codes, pa.ChunkedArray):
        codes = codes.combine_chunks()
    numbers: Rows = pc.fill_null(codes.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    missing = numbers < 0
    numbers[missing] = len(codes.dictionary) + np.arange(int(missing.sum()))
    return numbers


def _units(positives: csr_matrix, units_of: Rows) -> _Units:
    """units_of: the unit of each query, from 0, int64 [n]."""
    queries, number = len(units_of), int(units_of.max()) + 1 if len(units_of) else 0
    ones = csr_matrix((np.ones(positives.nnz, np.int64), positives.indices, positives.indptr), shape=positives.shape)
    if number == queries and bool((units_of == np.arange(queries)).all()):
        return _Units(ones, np.ones(queries, np.int64))
    members = csr_matrix((np.ones(queries, np.int64), (units_of, np.arange(queries))), shape=(number, queries))
    return _Units(csr_matrix(members @ ones), np.bincount(units_of, minlength=number))


def _draw(units: _Units, there: Rows, wanted: int, random: np.random.Generator) -> Rows:
    """Units of `wanted` queries together, or fewer where no more can be taken, int64."""
    candidates = random.permutation(there[units.movable()[there]])
    total = int(units.sizes[candidates].sum())
    if not total:
        return candidates[:0]
    by_stratum = candidates[np.argsort(units.strata()[candidates], kind="stable")]
    steps = np.floor(np.arange(len(by_stratum) + 1) * min(1.0, wanted / total) + random.random())
    first = by_stratum[np.diff(steps) > 0]  # evenly spaced, so that each stratum gives its share
    taken, size = [], 0
    chosen = np.zeros(len(units.sizes), bool)
    chosen[first] = True
    for unit in [*random.permutation(first).tolist(), *candidates[~chosen[candidates]].tolist()]:
        if size == wanted:
            break
        if size + units.sizes[unit] <= wanted and units.take(unit):
            taken.append(unit)
            size += int(units.sizes[unit])
    if not taken:  # every group is larger than what is wanted: the smallest one, then
        smallest = candidates[np.argsort(units.sizes[candidates], kind="stable")].tolist()
        small_enough = (unit for unit in smallest if 2 * units.sizes[unit] < units.sizes.sum())
        taken = list(islice((unit for unit in small_enough if units.take(unit)), 1))
    return np.array(taken, np.int64)
