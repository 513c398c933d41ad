"""What is known of all training queries' pairs: entries with pull and push, as compressed rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix

from xmc.arrays import Rows, places_of
from xmc.cached import cached_property
from xmc.data.targets import Targets
from xmc.training.targets import StepTargets

__all__ = ["PairEntries", "keys_of"]


@dataclass(frozen=True)
class PairEntries:
    """Entries of N queries over `count` labels: those of query i are [indptr[i], indptr[i + 1]), see `StepTargets`.

    indptr: int64 [N + 1]. labels: int32 [n], ascending and unique within a query. pull, push: float32 [n].
    """

    indptr: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    pull: npt.NDArray[np.float32]
    push: npt.NDArray[np.float32]
    count: int

    @classmethod
    def of(cls, targets: Targets, weighted: bool, rejected_weight: float = 1.0) -> PairEntries:
        """Positives pull, by their relevance where `weighted`; rejected pairs push by a weight; excluded ones do neither."""
        queries, count = targets.positives.shape
        keys = [keys_of(matrix) for matrix in (targets.excluded, targets.rejected, targets.positives)]
        of_kind = np.repeat(np.arange(3), [len(some) for some in keys])
        joined, first = np.unique(np.concatenate(keys), return_index=True)  # what is excluded comes first
        kinds = of_kind[first]
        pull = np.zeros(len(joined), np.float32)
        weights = targets.positives.data if weighted else np.ones(targets.positives.nnz, np.float32)
        pull[kinds == 2] = weights[first[kinds == 2] - len(keys[0]) - len(keys[1])]
        push = np.where(kinds == 1, np.float32(rejected_weight), np.float32(0))
        return cls.from_keys(joined, pull, push, queries, count)

    @classmethod
    def from_keys(
        cls,
        keys: Rows,
        pull: npt.NDArray[np.floating],
        push: npt.NDArray[np.floating],
        queries: int,
        count: int,
    ) -> PairEntries:
        """From the number of each pair, query · count + label, int64 [n] ascending and unique."""
        indptr = np.searchsorted(keys, np.arange(queries + 1, dtype=np.int64) * count).astype(np.int64)
        labels = (keys % max(count, 1)).astype(np.int32)
        return cls(indptr, labels, np.asarray(pull, np.float32), np.asarray(push, np.float32), count)

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.indptr) - 1

    @cached_property
    def queries(self) -> Rows:
        """The query of each entry, int64 [n]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.indptr))

    @cached_property
    def keys(self) -> Rows:
        """The number of each pair, query · count + label, int64 [n], ascending."""
        return self.queries * self.count + self.labels

    @cached_property
    def never_negative(self) -> csr_matrix:
        """CSR bool [N, L], the pairs of a push below 1, which are or may be relevant: they must not be mined as negatives."""
        kept = self.push < 1
        indptr = np.concatenate([[0], np.cumsum(kept)])[self.indptr]
        shape = (len(self), self.count)
        return csr_matrix((np.ones(int(indptr[-1]), bool), self.labels[kept], indptr), shape=shape)

    def take(self, rows: Rows) -> PairEntries:
        """The entries of the queries `rows`, in that order, repeats allowed."""
        places, indptr = places_of(self.indptr, rows)
        return PairEntries(indptr, self.labels[places], self.pull[places], self.push[places], self.count)

    def pulling(self, chosen: npt.NDArray[np.bool_]) -> PairEntries:
        """Only the entries of a mask, bool [n], pull; others that did count nowhere."""
        return replace(self, pull=np.where(chosen, self.pull, np.float32(0)))

    def for_step(self) -> StepTargets:
        """As a step has them."""
        return StepTargets(
            torch.from_numpy(self.indptr),
            torch.from_numpy(self.labels.astype(np.int64)),
            torch.from_numpy(self.pull),
            torch.from_numpy(self.push),
            self.count,
        )


def keys_of(matrix: csr_matrix) -> Rows:
    """The number of each stored pair, query · labels + label, int64, ascending."""
    rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    return np.asarray(rows * matrix.shape[1] + matrix.indices, np.int64)
