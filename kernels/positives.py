"""The positive labels of a batch of queries, as compressed sparse rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xmc.cached import cached_property
from xmc.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Positives", "kept_indptr", "require_positives"]


@dataclass(frozen=True)
class Positives:
    """Positive labels of B queries: those of query i are `indices[indptr[i]:indptr[i + 1]]`.

    indptr: int64 [B + 1], starting at 0.
    indices: int32 or int64 [nnz], sorted and unique within a row.
    weights: optional relevance, floating [nnz], not negative; a loss divides by their sum in each row.

    lowest, highest: the smallest and the largest of `indices`; 0 and -1 where there are none.

    Everything is checked once, here, and no loss asks these tensors again. Make positives on the CPU and move them with `to`:
    checks on a GPU wait for it.

    Raises InputError when the arrays do not fit together, a row is not sorted and unique, or a weight is negative or NaN.
    """

    indptr: Tensor
    indices: Tensor
    weights: Tensor | None = None
    lowest: int = field(init=False, repr=False, compare=False, default=0)
    highest: int = field(init=False, repr=False, compare=False, default=-1)

    def __post_init__(self) -> None:
        indptr, indices = self.indptr, self.indices
        if indptr.dtype != torch.int64 or indptr.dim() != 1 or len(indptr) < 1 or int(indptr[0]) != 0:
            raise InputError("Positives.indptr must be a one-dimensional int64 tensor that starts at 0.")
        if indices.dtype not in (torch.int32, torch.int64) or indices.shape != (int(indptr[-1]),):
            raise InputError(
                f"Positives.indices must be int32 or int64 with indptr[-1] = {int(indptr[-1])} entries, "
                f"but is {indices.dtype} of shape {tuple(indices.shape)}."
            )
        if len(indices):
            self._note(int(indices.min()), int(indices.max()))
        if bool((indptr.diff() < 0).any()):
            raise InputError("Positives.indptr must not decrease.")
        if self.weights is not None:
            if self.weights.shape != indices.shape or not self.weights.is_floating_point():
                raise InputError("Positives.weights must be floating, with one entry for each index.")
            if not bool((self.weights >= 0).all()):
                raise InputError("Positives.weights must not be negative or NaN.")
        if len(indices) > 1:
            rows = self.rows
            ordered = (indices.diff() > 0) | (rows.diff() > 0)
            if not bool(ordered.all()):
                row = int(rows[1:][~ordered][0])
                raise InputError(
                    f"Positives.indices of row {row} are not sorted and unique; Positives.from_lists makes them so."
                )

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def counts(self) -> Tensor:
        """Number of positives of each row, int64 [B]."""
        return self.indptr.diff()

    @cached_property
    def rows(self) -> Tensor:
        """The row of each entry of `indices`, int64 [nnz]."""
        return torch.repeat_interleave(self.counts, output_size=len(self.indices))

    def check(self, queries: int, labels: int, name: str = "positives") -> None:
        """Raise InputError, which calls these lists `name`, unless there are `queries` rows of indices in [0, labels)."""
        if len(self) != queries:
            raise InputError(f"{name} has {len(self)} rows for {queries} queries; give one row for each query.")
        if len(self.indices) and not 0 <= self.lowest <= self.highest < labels:
            raise InputError(
                f"{name}.indices range from {self.lowest} to {self.highest}, outside of the {labels} labels [0, {labels})."
            )

    def to(self, device: torch.device | str) -> Positives:
        """The same positives with all tensors on `device`; these themselves where they are there.

        Nothing is checked again, and a copy to a GPU is not waited for.
        """
        # A copy to the CPU must have ended before it is read; what reads one on a GPU comes after it anyway.
        ahead = torch.device(device).type == "cuda"
        indptr, indices = (tensor.to(device, non_blocking=ahead) for tensor in (self.indptr, self.indices))
        weights = None if self.weights is None else self.weights.to(device, non_blocking=ahead)
        if indptr is self.indptr and indices is self.indices and weights is self.weights:
            return self
        return self._checked(indptr, indices, weights, self.lowest, self.highest)

    def joined(self, other: Positives | None, labels: int) -> Positives:
        """The pairs of both, over `labels` labels, without weights; a pair of both stands twice.

        For a search, to which pairs are left out, twice or once. No tensor is asked for its values.
        """
        if other is None or not len(other.indices):
            return self
        keys = [pairs.rows * labels + pairs.indices for pairs in (self, other)]
        columns = torch.cat(keys).sort().values % max(labels, 1)
        lowest, highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        if not len(self.indices):
            lowest = other.lowest
        return self._checked(self.indptr + other.indptr, columns, None, lowest, highest)

    @classmethod
    def _checked(cls, indptr: Tensor, indices: Tensor, weights: Tensor | None, lowest: int, highest: int) -> Positives:
        """Positives of arrays that are known to be right."""
        made = object.__new__(cls)
        for name, value in {"indptr": indptr, "indices": indices, "weights": weights}.items():
            object.__setattr__(made, name, value)
        made._note(lowest, highest)
        return made

    def _note(self, lowest: int, highest: int) -> None:
        object.__setattr__(self, "lowest", lowest)
        object.__setattr__(self, "highest", highest)

    @classmethod
    def none(cls, queries: int, device: torch.device | str = "cpu") -> Positives:
        """Rows without any positive."""
        indptr = torch.zeros(queries + 1, dtype=torch.int64, device=device)
        return cls._checked(indptr, indptr[:0], None, 0, -1)

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]], weights: Sequence[Sequence[float]] | None = None) -> Positives:
        """Positives of each query as a list; lists are sorted, and of a label given twice the first weight stays.

        Weights become float64, so that a loss of float64 embeddings sees the numbers that were given.

        >>> Positives.from_lists([[3, 1], [], [2]]).indices
        tensor([1, 3, 2])
        """
        pairs = [
            dict(reversed(list(zip(row, [1.0] * len(row) if weights is None else weights[i], strict=True))))
            for i, row in enumerate(rows)
        ]
        flat = [(label, row[label]) for row in pairs for label in sorted(row)]
        indptr = torch.tensor([0, *(len(row) for row in pairs)], dtype=torch.int64).cumsum(0)
        indices = torch.tensor([label for label, _ in flat], dtype=torch.int64)
        if weights is None:
            return cls(indptr, indices)
        return cls(indptr, indices, torch.tensor([weight for _, weight in flat], dtype=torch.float64))

    @classmethod
    def from_scipy(cls, matrix: csr_matrix, weighted: bool = False) -> Positives:
        """Positives from a scipy CSR matrix [B, L]: the pairs with a value > 0; a stored 0 is a pair that is not positive.

        Values of entries stored twice are summed up first. With `weighted` the values become the relevance weights.
        """
        matrix = matrix.copy()
        matrix.sum_duplicates()
        positive = torch.from_numpy(matrix.data > 0)
        return cls(
            kept_indptr(torch.from_numpy(matrix.indptr).long(), positive),
            torch.from_numpy(matrix.indices)[positive],
            torch.from_numpy(matrix.data)[positive] if weighted else None,
        )


def kept_indptr(indptr: Tensor, mask: Tensor) -> Tensor:
    """Where compressed rows begin and end, int64 [B + 1], once only the entries of a mask (bool [nnz]) are left."""
    return torch.nn.functional.pad(mask.cumsum(0), (1, 0))[indptr]


def require_positives(given: object, name: str) -> None:
    """Raise InputError unless what was given as `name` is Positives."""
    if not isinstance(given, Positives):
        raise InputError(
            f"{name} must be Positives, not {type(given).__name__}; Positives.from_lists makes them from lists."
        )
