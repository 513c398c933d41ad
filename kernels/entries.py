"""The (query, label) pairs of a batch that are not like all others: positives, and pairs left out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xmc.cached import cached_property
from xmc.kernels.positives import Positives, kept_indptr

__all__ = ["Entries", "flagged_pairs"]


@dataclass(frozen=True)
class Entries:
    """Special pairs as compressed rows, sorted by row and label: those of query i are [indptr[i], indptr[i + 1]).

    indptr: int64 [B + 1]. columns: int64 [n], labels. slots: int64 [n], where a positive stands in `Positives.indices`, and
    -1 for a pair that is left out of everything; None where entry n is positive n. positives: number of entries
    that are positives.
    """

    indptr: Tensor
    columns: Tensor
    slots: Tensor | None
    positives: int

    @classmethod
    def of(cls, positives: Positives, exclude: Positives | None, labels: int) -> Entries:
        """Positives and excluded pairs together; a pair that is both stays a positive."""
        columns = positives.indices.long()
        if exclude is None or not len(exclude.indices):
            return cls(positives.indptr, columns, None, len(columns))
        wanted = positives.rows * labels + columns
        unwanted = exclude.rows * labels + exclude.indices.long()
        unwanted = unwanted[~torch.isin(unwanted, wanted, assume_unique=True)]
        slots = torch.cat([torch.arange(len(wanted), device=wanted.device), torch.full_like(unwanted, -1)])
        keys, order = torch.cat([wanted, unwanted]).sort()
        edges = torch.arange(len(positives) + 1, device=keys.device) * labels
        return cls(torch.searchsorted(keys, edges), keys % max(labels, 1), slots[order], len(columns))

    @cached_property
    def rows(self) -> Tensor:
        """The query of each entry, int64 [n]."""
        return torch.repeat_interleave(self.indptr.diff(), output_size=len(self.columns))

    @property
    def excluded(self) -> Positives:
        """The pairs that are left out, as lists of their own."""
        out = torch.zeros_like(self.columns, dtype=torch.bool) if self.slots is None else self.slots < 0
        return Positives(kept_indptr(self.indptr, out), self.columns[out])


def flagged_pairs(positives: Positives, exclude: Positives | None, labels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positives and excluded pairs, unsorted, without asking a tensor for its values: (rows, columns, slots), int64 [n] each.

    Positives come first, slot n of the n-th; then the excluded pairs, of slot -1. A pair that is both stays a positive:
    it comes a second time among the excluded pairs, with its slot as a positive.
    """
    rows, columns = positives.rows, positives.indices.long()
    slots = torch.arange(len(columns), device=columns.device)
    if exclude is None or not len(exclude.indices):
        return rows, columns, slots
    wanted, unwanted = rows * labels + columns, exclude.rows * labels + exclude.indices
    excluded_slots = torch.full_like(unwanted, -1)
    if len(wanted):
        places = torch.searchsorted(wanted, unwanted).clamp_max(len(wanted) - 1)
        excluded_slots = torch.where(wanted[places] == unwanted, places, excluded_slots)
    return (
        torch.cat([rows, exclude.rows]),
        torch.cat([columns, exclude.indices.long()]),
        torch.cat([slots, excluded_slots]),
    )
