"""What goes into an engine, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from xmc.cached import cached_property
from xmc.kernels.entries import Entries, flagged_pairs
from xmc.kernels.positives import Positives
from xmc.kernels.reductions import Reduction

__all__ = ["Gradients", "Problem", "Result"]


@dataclass(frozen=True)
class Problem:
    """One call, without what is differentiated: s_ij = scale · q_i·z_j + bias_j, reduced over j of `labels` labels.

    exclude: pairs that are left out of everything, if they are not positives.
    scale: 1/τ, a float; where τ is a tensor on the queries' device, which is no CPU, a tensor [] there, of the dtype of
        scores, NaN for a τ that is no positive number.
    tile_bytes: largest size of a buffer of scores, or of their gradients. keep_bytes: of weights that the Triton engine keeps
        for the backward pass. eight_bit: whether it computes the sum from embeddings in eight bits.
    """

    reduction: Reduction
    positives: Positives
    exclude: Positives | None
    labels: int
    scale: float | Tensor
    tile_bytes: int
    keep_bytes: int = 0
    eight_bit: bool = False

    def scale_on(self, device: torch.device) -> Tensor:
        """1/τ, float32 [1], made on the device without a copy from the host."""
        if isinstance(self.scale, Tensor):
            return self.scale.float().reshape(1)
        return torch.full((1,), self.scale, dtype=torch.float32, device=device)

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Positives and excluded pairs, without asking for values: (rows, columns, slots), see `flagged_pairs`."""
        return flagged_pairs(self.positives, self.exclude, self.labels)

    @cached_property
    def entries(self) -> Entries:
        """Positives and excluded pairs, sorted and unique, for which excluded pairs are asked for their values."""
        return Entries.of(self.positives, self.exclude, self.labels)


class Result(NamedTuple):
    """Row statistics, and what the backward pass needs of them.

    value [B], derivative [B] (of the sum in the shift; zero where there is none), positive_scores [nnz].
    Of torch tiles: scores [B, L], only where all of them fit the budget; else weighted [B, D], Σ_j f'(s_ij) z_j.
    Of Triton: kept [B, C], weights of the first C labels, and kept_values [tiles, B], what they are relative to; logarithms
    [B], the value of a logarithmic reduction in base 2, as its kernels compute it: rounded to base e and back it would be
    off by more than the scores are.
    """

    value: Tensor
    derivative: Tensor
    positive_scores: Tensor
    scores: Tensor | None = None
    weighted: Tensor | None = None
    kept: Tensor | None = None
    kept_values: Tensor | None = None
    logarithms: Tensor | None = None


class Gradients(NamedTuple):
    """Gradients of the inputs, None for what was not asked."""

    queries: Tensor | None
    labels: Tensor | None
    bias: Tensor | None
