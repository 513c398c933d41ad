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
    """Positive labels of B queries, or entries of any kind: those of query i are `indices[indptr[i]:indptr[i + 1]]`.

    indptr: int64 [B + 1], starting at 0.
    indices: int32 or int64 [nnz], sorted and unique within a row.
    weights: optional, the *pull* of each entry, its weight as a positive, floating [nnz], not negative; None for ones. A loss
        divides by their sum in each row, and a row counts where it is above 0.
    push: optional, the *push* of each entry, its weight as a negative, floating [nnz], not negative; a pair without an entry
        has a pull of 0 and a push of 1. None where every entry is a plain positive. So an entry (pull, push) is a positive
        (w, 0), a pair that counts nowhere (0, 0), a rejected one (0, κ), or an uncertain one (p, 1 - p); each loss says
        what it makes of a push.

    lowest, highest: the smallest and the largest of `indices`; 0 and -1 where there are none. widest: the largest number of
    entries of a row, or more.

    Everything is checked once, here, and no loss asks these tensors again. Make positives on the CPU and move them with `to`:
    checks on a GPU wait for it.

    Raises InputError when the arrays do not fit together, a row is not sorted and unique, or a weight or a push is negative
    or NaN.
    """

    indptr: Tensor
    indices: Tensor
    weights: Tensor | None = None
    push: Tensor | None = None
    lowest: int = field(init=False, repr=False, compare=False, default=0)
    highest: int = field(init=False, repr=False, compare=False, default=-1)
    widest: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        indptr, indices = self.indptr, self.indices
        if indptr.dtype != torch.int64 or indptr.dim() != 1 or len(indptr) < 1 or int(indptr[0]) != 0:
            raise InputError("Positives.indptr must be a one-dimensional int64 tensor that starts at 0.")
        if indices.dtype not in (torch.int32, torch.int64) or indices.shape != (int(indptr[-1]),):
            raise InputError(
                f"Positives.indices must be int32 or int64 with indptr[-1] = {int(indptr[-1])} entries, "
                f"but is {indices.dtype} of shape {tuple(indices.shape)}."
            )
        if bool((indptr.diff() < 0).any()):
            raise InputError("Positives.indptr must not decrease.")
        if len(indices):
            self._note(int(indices.min()), int(indices.max()), int(indptr.diff().max()))
        for name, values in (("weights", self.weights), ("push", self.push)):
            if values is None:
                continue
            if values.shape != indices.shape or not values.is_floating_point():
                raise InputError(f"Positives.{name} must be floating, with one entry for each index.")
            if not bool((values >= 0).all()):
                raise InputError(f"Positives.{name} must not be negative or NaN.")
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
        """Number of entries of each row, int64 [B]."""
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
        weights, push = (
            None if values is None else values.to(device, non_blocking=ahead) for values in (self.weights, self.push)
        )
        if indptr is self.indptr and indices is self.indices and weights is self.weights and push is self.push:
            return self
        return self._checked(indptr, indices, weights, push, (self.lowest, self.highest, self.widest))

    def joined(self, other: Positives | None, labels: int) -> Positives:
        """The pairs of both, over `labels` labels, without weights and pushes; a pair of both stands twice.

        For a search, to which pairs are left out, twice or once. No tensor is asked for its values.
        """
        if other is None or not len(other.indices):
            return self
        keys = [pairs.rows * labels + pairs.indices for pairs in (self, other)]
        columns = torch.cat(keys).sort().values % max(labels, 1)
        lowest, highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        if not len(self.indices):
            lowest = other.lowest
        notes = lowest, highest, self.widest + other.widest
        return self._checked(self.indptr + other.indptr, columns, None, None, notes)

    @classmethod
    def _checked(
        cls,
        indptr: Tensor,
        indices: Tensor,
        weights: Tensor | None,
        push: Tensor | None,
        notes: tuple[int, int, int],
    ) -> Positives:
        """Positives of arrays that are known to be right."""
        made = object.__new__(cls)
        for name, value in {"indptr": indptr, "indices": indices, "weights": weights, "push": push}.items():
            object.__setattr__(made, name, value)
        made._note(*notes)
        return made

    def _note(self, lowest: int, highest: int, widest: int) -> None:
        for name, value in {"lowest": lowest, "highest": highest, "widest": widest}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def none(cls, queries: int, device: torch.device | str = "cpu") -> Positives:
        """Rows without any positive."""
        indptr = torch.zeros(queries + 1, dtype=torch.int64, device=device)
        return cls._checked(indptr, indptr[:0], None, None, (0, -1, 0))

    @classmethod
    def from_lists(
        cls,
        rows: Sequence[Sequence[int]],
        weights: Sequence[Sequence[float]] | None = None,
        push: Sequence[Sequence[float]] | None = None,
    ) -> Positives:
        """Entries of each query as a list; lists are sorted, and of a label given twice the first weight and push stay.

        Weights and pushes become float64, so that a loss of float64 embeddings sees the numbers that were given.

        >>> Positives.from_lists([[3, 1], [], [2]]).indices
        tensor([1, 3, 2])
        >>> Positives.from_lists([[3, 1]], [[1.0, 0.0]], push=[[0.0, 2.0]]).push
        tensor([2., 0.], dtype=torch.float64)
        """
        pairs = [dict(reversed([(label, place) for place, label in enumerate(row)])) for row in rows]
        flat = [(i, row[label], label) for i, row in enumerate(pairs) for label in sorted(row)]
        indptr = torch.tensor([0, *(len(row) for row in pairs)], dtype=torch.int64).cumsum(0)
        indices = torch.tensor([label for _, _, label in flat], dtype=torch.int64)

        def given(lists: Sequence[Sequence[float]] | None, name: str) -> Tensor | None:
            if lists is None:
                return None
            if [len(values) for values in lists] != [len(row) for row in rows]:
                raise InputError(f"{name} must have one number for each label of each row.")
            return torch.tensor([lists[i][place] for i, place, _ in flat], dtype=torch.float64)

        return cls(indptr, indices, given(weights, "weights"), given(push, "push"))

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
