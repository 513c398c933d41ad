"""What is known of the pairs of queries and labels: the one place that says it.

A pair is positive (judged relevant, with a weight above 0), rejected (judged not relevant: its relevance is 0, or its
label is in the column `rejected`), excluded (it counts nowhere: neither positive nor negative, neither prediction nor
truth), or unknown, which is everything else, and what training takes for a negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from xmc.arrays import Mask
from xmc.cached import cached_property
from xmc.errors import InputError
from xmc.metrics.truth import filter_rows, pairs_of, truth_without

__all__ = ["Targets", "first_contradiction", "no_pairs", "pairs_of_rows", "split_relevance"]

Pairs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Targets:
    """What is known of the pairs of n queries and L labels. Matrices are sorted within rows, and store each pair once.

    positives: scipy CSR float32 [n, L], the judged relevant pairs; every stored value is greater than 0 and is the
    pair's weight. rejected: CSR bool [n, L], the pairs that were judged not relevant. No pair is positive and rejected.
    excluded: CSR bool [n, L], the pairs that count nowhere, whatever the other two matrices say of them. labelled: bool [n],
    False for a query of whose pairs nothing is known, not even that those without a label are not relevant; None where all
    queries are labelled.
    """

    positives: csr_matrix
    rejected: csr_matrix
    excluded: csr_matrix
    labelled: Mask | None = None

    @classmethod
    def from_pairs(
        cls,
        positives: csr_matrix,
        rejected: csr_matrix | None = None,
        excluded: npt.NDArray[np.integer] | None = None,
        labelled: Mask | None = None,
    ) -> Targets:
        """From matrices as in a `Split` and filter pairs (query, label), int [m, 2].

        Raises InputError for shapes that differ, a stored positive that is not above 0 (`split_relevance` takes
        relevances apart), a pair that is positive and rejected, and filter pairs outside of the matrix.
        """
        queries, labels = positives.shape
        if rejected is None:
            rejected = no_pairs(queries, labels)
        if rejected.shape != positives.shape:
            raise InputError(
                f"Positives are of {queries} queries and {labels} labels, but rejected pairs of {rejected.shape[0]} and "
                f"{rejected.shape[1]}; give both for the same queries and labels."
            )
        if not bool((positives.data > 0).all()):
            value = positives.data[~(positives.data > 0)][0]
            raise InputError(
                f"A stored positive has the value {value}; only pairs of a relevance above 0 are positive."
            )
        contradiction = first_contradiction(positives, rejected)
        if contradiction is not None:
            raise InputError(
                f"The pair (query {contradiction[0]}, label {contradiction[1]}) is positive and rejected; decide for one."
            )
        indptr, indices = filter_rows(excluded, queries, labels)
        pairs = csr_matrix((np.ones(len(indices), bool), indices, indptr), shape=(queries, labels))
        return cls(positives, rejected, pairs, labelled)

    def __len__(self) -> int:
        """Number of queries."""
        return int(self.positives.shape[0])

    def __repr__(self) -> str:
        """Number of queries, labels and pairs of each kind."""
        kinds = {"positive": self.positives, "rejected": self.rejected, "excluded": self.excluded}
        pairs = ", ".join(f"{pairs.nnz:,} {kind}" for kind, pairs in kinds.items())
        return f"<{type(self).__name__}: {len(self):,} queries, {self.positives.shape[1]:,} labels; pairs: {pairs}>"

    def take(self, rows: npt.NDArray[np.integer]) -> Targets:
        """The targets of the queries `rows`, in that order."""
        labelled = None if self.labelled is None else self.labelled[rows]
        return Targets(self.positives[rows], self.rejected[rows], self.excluded[rows], labelled)

    @cached_property
    def positive_counts(self) -> npt.NDArray[np.int64]:
        """Number of queries that each label is a positive of, int64 [L].

        Excluded pairs count here: the field takes propensities from the training matrix as it was published, without
        its filter.
        """
        return np.bincount(self.positives.indices, minlength=self.positives.shape[1]).astype(np.int64)

    @cached_property
    def truth(self) -> csr_matrix:
        """CSR bool [n, L], the pairs that predictions are judged by: positives that are not excluded."""
        return truth_without(self.positives, self._excluded_pairs)

    @cached_property
    def not_negative(self) -> csr_matrix:
        """CSR bool [n, L], the pairs that must never be a negative: positives and excluded ones."""
        return _sorted(self.positives.astype(bool) + self.excluded)

    @cached_property
    def judged_negative(self) -> csr_matrix:
        """CSR bool [n, L], the rejected pairs that are not excluded: the negatives that somebody has looked at."""
        return truth_without(self.rejected, self._excluded_pairs)

    @property
    def _excluded_pairs(self) -> Pairs:
        """int64 [m, 2]."""
        return pairs_of(self.excluded)


def split_relevance(relevance: csr_matrix) -> tuple[csr_matrix, csr_matrix]:
    """The positives, float32, and the rejected pairs, bool, of stored relevances: those above 0, and those that are 0.

    relevance: CSR [n, L], stored values are finite and not negative; an explicit 0 is a judgement. Raises InputError
    for others.

    >>> positives, rejected = split_relevance(csr_matrix(([1.0, 0.0], ([0, 0], [2, 5])), shape=(1, 6)))
    >>> positives.indices.tolist(), rejected.indices.tolist()
    ([2], [5])
    """
    values = relevance.data
    sound = np.isfinite(values) & (values >= 0)
    if not bool(sound.all()):
        raise InputError(f"Relevance {values[~sound][0]} is not a finite number >= 0.")
    above = values > 0
    if bool(above.all()):
        return relevance.astype(np.float32, copy=False), no_pairs(*relevance.shape)
    positives = _kept(relevance, above).astype(np.float32, copy=False)
    return positives, _kept(relevance, ~above, np.ones(int((~above).sum()), bool))


def first_contradiction(positives: csr_matrix, rejected: csr_matrix) -> tuple[int, int] | None:
    """(query, label) of the first pair that is positive and rejected; None where there is none."""
    if not rejected.nnz:
        return None
    both = positives.astype(bool).multiply(rejected).tocsr()
    if not both.nnz:
        return None
    rows, columns = both.nonzero()
    return int(rows[0]), int(columns[0])


def no_pairs(queries: int, labels: int) -> csr_matrix:
    """CSR bool [queries, labels] that stores nothing."""
    none = np.zeros(0, np.int32)
    return csr_matrix((np.zeros(0, bool), none, np.zeros(queries + 1, np.int32)), shape=(queries, labels))


def pairs_of_rows(pairs: Pairs, rows: npt.NDArray[np.integer]) -> Pairs:
    """Filter pairs (query, label), int64 [m, 2], of some ascending query rows, which are numbered from 0 in the result."""
    kept = pairs[np.isin(pairs[:, 0], rows)]
    return np.stack([np.searchsorted(rows, kept[:, 0]), kept[:, 1]], axis=1)


def _kept(matrix: csr_matrix, kept: npt.NDArray[np.bool_], values: npt.NDArray[np.bool_] | None = None) -> csr_matrix:
    """The stored entries that a mask [nnz] keeps, with their own values or with those given."""
    indptr = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr]
    data = matrix.data[kept] if values is None else values
    return csr_matrix((data, matrix.indices[kept], indptr), shape=matrix.shape)


def _sorted(matrix: csr_matrix) -> csr_matrix:
    matrix.sum_duplicates()
    return matrix
