"""The candidates of some queries: what all of calibration looks at, whatever the number of labels."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from xmc.errors import InputError, NotFiniteError

__all__ = ["FREQUENCY_GROUPS", "Candidates", "JudgedCandidates", "draws", "frequency_groups"]

FREQUENCY_GROUPS = ("none", "1", "2 to 3", "4 to 7", "8 to 15", "16 to 31", "32 to 63", "64 and more")
"""Groups of labels by their number of training queries."""


@dataclass(frozen=True)
class Candidates:
    """The K best labels of n queries, best first.

    scores: float32 [n, K], -inf where there is no label. groups: int8 [n, K], places in FREQUENCY_GROUPS.
    Raises InputError for shapes that differ, NotFiniteError for NaN or +inf scores, with the query.
    """

    scores: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int8]

    def __post_init__(self) -> None:
        if self.scores.ndim != 2 or self.scores.shape != self.groups.shape:
            raise InputError(
                f"Candidates need scores and groups of one shape [n, K], but have {self.scores.shape}, {self.groups.shape}."
            )
        wrong = np.isnan(self.scores) | (self.scores == np.inf)
        if wrong.any():
            query = int(wrong.any(axis=1).argmax())
            raise NotFiniteError(
                f"The scores of query {query} hold NaN or infinity ({int(wrong.any(axis=1).sum())} such queries); embed "
                f"it again, or leave it out."
            )

    @classmethod
    def from_search(
        cls, ids: npt.NDArray[np.int64], scores: npt.NDArray[np.floating], groups: npt.NDArray[np.int8]
    ) -> Candidates:
        """The candidates that a search gave: ids [n, K] with -1 for none, and scores [n, K].

        groups: int8 [ids], the frequency group of each label id; labels with greater ids are of the first.
        """
        known = (ids >= 0) & (ids < len(groups))
        candidate_groups = np.zeros(ids.shape, np.int8)
        candidate_groups[known] = groups[ids[known]]
        return cls(np.where(ids >= 0, scores, -np.inf).astype(np.float32), candidate_groups)

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: npt.NDArray[np.integer]) -> Candidates:
        """The candidates of some queries."""
        return Candidates(self.scores[rows], self.groups[rows])


@dataclass(frozen=True)
class JudgedCandidates:
    """Candidates with the truth.

    hits: bool [n, K], which candidates are true. positives: int64 [n], number of true labels, candidates or not.
    draws: float64 [n] in [0, 1), by each query's uid, see `draws`.
    """

    candidates: Candidates
    hits: npt.NDArray[np.bool_]
    positives: npt.NDArray[np.int64]
    draws: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = self.candidates.scores.shape
        if self.hits.shape != shape or self.positives.shape != shape[:1] or self.draws.shape != shape[:1]:
            raise InputError(f"hits, positives and draws must fit candidates of shape {shape}.")
        if (self.hits.sum(axis=1) > self.positives).any():
            raise InputError("A query has more hits than true labels.")

    def __len__(self) -> int:
        return len(self.candidates)

    @property
    def missed(self) -> npt.NDArray[np.int64]:
        """Number of true labels that are not among the candidates, int64 [n]."""
        return np.asarray(self.positives - self.hits.sum(axis=1), np.int64)

    def take(self, rows: npt.NDArray[np.integer]) -> JudgedCandidates:
        """Some of the queries."""
        return JudgedCandidates(self.candidates.take(rows), self.hits[rows], self.positives[rows], self.draws[rows])


def draws(uids: list[str | None], seed: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each uid, as if drawn at random, float64 [n]; it depends on the uid and the seed alone.

    What is drawn by it does not depend on the order of the queries, nor on the other ones.
    """
    key = seed.to_bytes(8, "little", signed=True)
    hashes = [blake2b((uid or "").encode(), digest_size=7, key=key).digest() for uid in uids]
    return np.array([int.from_bytes(digest, "little") for digest in hashes], np.float64) / 2.0**56


def frequency_groups(training_counts: npt.NDArray[np.integer]) -> npt.NDArray[np.int8]:
    """The place in FREQUENCY_GROUPS of labels, int8, by their numbers of training queries; of any shape."""
    counts = np.maximum(np.asarray(training_counts, np.int64), 0)
    return np.minimum(np.log2(counts + 0.5).astype(np.int64) + 1, len(FREQUENCY_GROUPS) - 1).astype(np.int8)
