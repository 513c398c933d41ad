"""What goes into an engine, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from xmc.kernels.entries import Entries
from xmc.kernels.reductions import Reduction

__all__ = ["Gradients", "Problem", "Result"]


@dataclass(frozen=True)
class Problem:
    """One call, without what is differentiated: s_ij = scale · q_i·z_j + bias_j, reduced over j.

    tile_bytes: largest size of a buffer of scores, or of their gradients.
    """

    reduction: Reduction
    entries: Entries
    scale: float
    tile_bytes: int


class Result(NamedTuple):
    """Row statistics, and what the backward pass needs of them.

    value [B], derivative [B] (of the sum in the shift; zero where there is none), positive_scores [nnz].
    Of torch tiles: scores [B, L], only where all of them fit the budget; else weighted [B, D], Σ_j f'(s_ij) z_j.
    """

    value: Tensor
    derivative: Tensor
    positive_scores: Tensor
    scores: Tensor | None = None
    weighted: Tensor | None = None


class Gradients(NamedTuple):
    """Gradients of the inputs, None for what was not asked."""

    queries: Tensor | None
    labels: Tensor | None
    bias: Tensor | None
