"""What goes into a step, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xmc.arrays import Rows
from xmc.training.targets import StepTargets

__all__ = ["Batch", "StepReport"]


@dataclass(frozen=True)
class Batch:
    """The queries of one step, and what is known of their pairs with all labels.

    step: counted from 0. rows: int64 [B], rows of the training queries.
    targets: the positives that this step drew for its queries; positives that it did not draw are excluded.
    every: `targets`, or, where the step trains on all positives that it happens to score, all positives, drawn or not.
    taught: what a teacher says of the queries; None without one.
    """

    step: int
    rows: Rows
    targets: StepTargets
    every: StepTargets
    taught: StepTargets | None = None


@dataclass(frozen=True)
class StepReport:
    """The loss of a step, the number of texts and tokens that this process encoded with gradient, and the queries' embeddings.

    queries: [B, D] of all processes, without gradient.
    """

    loss: float
    texts: int
    tokens: int
    queries: Tensor
