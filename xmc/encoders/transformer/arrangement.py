"""The tokens of a micro-batch as a backbone is given them, and its states of them as one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["Arranged"]


@dataclass(frozen=True)
class Arranged:
    """A micro-batch of n sequences with T tokens in all.

    ids: int64 [r, c], token ids on the backbone's device. keywords: what the backbone's call is given beside them.
    tokens: the number T. places: int64 [T], where each token stands among the r·c; None where they are the first T.
    """

    ids: Tensor
    tokens: int
    places: Tensor | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def states(self, hidden: Tensor) -> Tensor:
        """The states [T, W] of the tokens, one sequence after another, out of the backbone's [r, c, W]."""
        flat = hidden.flatten(0, 1)
        return flat[: self.tokens] if self.places is None else flat[self.places]
