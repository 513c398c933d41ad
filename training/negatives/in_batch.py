"""The positives of a batch's other queries as negatives, and no other labels."""

from __future__ import annotations

from typing_extensions import Self

from xmc.training.negatives.base import NegativeSource
from xmc.training.parts import TrainingRun

__all__ = ["InBatch"]


class InBatch(NegativeSource):
    """No labels but those that the step must score."""

    name = kind = "in-batch"

    @classmethod
    def from_run(cls, run: TrainingRun) -> Self:
        """It has no state."""
        return cls()
