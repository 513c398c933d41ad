"""What a call of attention is asked for, in one object."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["AttentionOptions", "visible"]


@dataclass(frozen=True)
class AttentionOptions:
    """How tokens of one segment see each other.

    causal: a token sees itself and what is before it. scale: factor of the scores. window: a token sees tokens at a distance
    below it; 0 for any distance. dropout: share of the attention probabilities that becomes zero, the others divided by
    1 - dropout.
    """

    causal: bool
    scale: float
    window: int
    dropout: float = 0.0

    def narrows(self, length: int) -> bool:
        """Whether the window hides anything in a segment of this length."""
        return 0 < self.window < length


def visible(rows: Tensor, keys: Tensor, options: AttentionOptions) -> Tensor:
    """Whether the token at position rows[i] sees the one at keys[j] of the same segment: bool [R, K]."""
    distance = rows[:, None] - keys[None, :]
    seen = torch.ones_like(distance, dtype=torch.bool)
    if options.causal:
        seen &= distance >= 0
    if options.window:
        seen &= distance.abs() < options.window
    return seen
