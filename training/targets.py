"""What a step knows of its pairs: sparse entries of each query, how much each counts as a positive and as a negative."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from xmc.cached import cached_property
from xmc.kernels.positives import Positives, kept_indptr

__all__ = ["StepTargets"]


@dataclass(frozen=True)
class StepTargets:
    """Entries of B queries over `count` labels (or candidate labels): those of query i are [indptr[i], indptr[i + 1]).

    indptr: int64 [B + 1], starting at 0.
    labels: int64 [n], ascending and unique within a query.
    pull: float32 [n], the weight of the pair as a positive. push: float32 [n], its weight as a negative.

    A positive has a pull above 0 and a push of 0; an excluded pair has 0 and 0, and counts nowhere; a rejected pair, one that
    was judged not relevant, has a pull of 0 and a push κ >= 1; an uncertain pair has a push between 0 and 1, and may pull, too.
    A pair without an entry has a pull of 0 and a push of 1, as has a rejected one of κ = 1.
    """

    indptr: Tensor
    labels: Tensor
    pull: Tensor
    push: Tensor
    count: int

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.indptr) - 1

    @cached_property
    def rows(self) -> Tensor:
        """The query of each entry, int64 [n]."""
        return torch.repeat_interleave(self.indptr.diff(), output_size=len(self.labels))

    @cached_property
    def positives(self) -> Positives:
        """The entries that kernels must see: those with a pull, and rejected pairs of another push than 1.

        Excluded pairs are in `exclude`, and a rejected pair of push 1 is a candidate as any other. Without weights where every
        pull is 1, and without pushes where every push is 0.
        """
        chosen = self.kept((self.pull > 0) | ((self.push != 0) & (self.push != 1)))
        weights = None if bool((chosen.pull == 1).all()) else chosen.pull
        push = chosen.push if bool(chosen.push.any()) else None
        return Positives(chosen.indptr, chosen.labels, weights, push)

    @cached_property
    def exclude(self) -> Positives | None:
        """The entries that count nowhere, as kernels take them; None where there are none."""
        chosen = self.kept((self.pull == 0) & (self.push == 0))
        return Positives(chosen.indptr, chosen.labels) if len(chosen.labels) else None

    @property
    def never_negative(self) -> Positives:
        """The entries of a push below 1, which are or may be relevant: positives, excluded and uncertain pairs."""
        chosen = self.kept(self.push < 1)
        return Positives(chosen.indptr, chosen.labels)

    @property
    def positive_labels(self) -> Tensor:
        """The labels that are a positive of some query, int64, ascending."""
        unique: Tensor = self.labels[self.pull > 0].unique()
        return unique

    @property
    def rejected_labels(self) -> Tensor:
        """The labels that are rejected for some query, int64, ascending."""
        unique: Tensor = self.labels[(self.pull == 0) & (self.push >= 1)].unique()
        return unique

    def kept(self, mask: Tensor) -> StepTargets:
        """Only the entries of a mask, bool [n]; the others become pairs without an entry."""
        return StepTargets(
            kept_indptr(self.indptr, mask), self.labels[mask], self.pull[mask], self.push[mask], self.count
        )

    def among(self, candidates: Tensor) -> StepTargets:
        """The entries whose labels are candidates (int64 [C], ascending), as positions among these."""
        if not len(candidates):
            return replace(self.kept(torch.zeros_like(self.labels, dtype=torch.bool)), count=0)
        positions = torch.searchsorted(candidates, self.labels)
        inside = candidates[positions.clamp_max(len(candidates) - 1)] == self.labels
        return replace(self.kept(inside), labels=positions[inside], count=len(candidates))

    def within(self, labels: slice) -> StepTargets:
        """The entries of a contiguous part of the labels, counted from its start."""
        chosen = self.kept((self.labels >= labels.start) & (self.labels < labels.stop))
        return replace(chosen, labels=chosen.labels - labels.start, count=labels.stop - labels.start)

    def transposed(self) -> StepTargets:
        """The same pairs as entries of `count` labels over B queries."""
        order = torch.argsort(self.labels * len(self) + self.rows)
        counts = torch.bincount(self.labels, minlength=self.count)
        indptr = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        return StepTargets(indptr, self.rows[order], self.pull[order], self.push[order], len(self))

    def pairs_on(self, device: torch.device) -> tuple[Positives, Positives | None]:
        """`positives` and `exclude` on the device of a loss; they are found on the CPU, so that no GPU is waited for."""
        return self.positives.to(device), None if self.exclude is None else self.exclude.to(device)
