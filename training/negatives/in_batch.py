"""The positives of a batch's other queries as negatives, and no other labels."""

from __future__ import annotations

from xmc.training.negatives.base import NegativeSource

__all__ = ["InBatch"]


class InBatch(NegativeSource):
    """No labels but those that the step must score."""

    name = kind = "in-batch"
