"""Every label as a negative, at every step."""

from __future__ import annotations

from xmc.config import TrainConfig
from xmc.training.negatives.base import NegativeSource

__all__ = ["AllLabels"]


class AllLabels(NegativeSource):
    """Every label is scored and encoded, at every step (Gupta et al., DEXML, ICLR 2024)."""

    name = kind = "all"
    scores_all = True

    @classmethod
    def count(cls, config: TrainConfig, labels: int, queries: float, positives: float) -> tuple[float, float]:
        """All labels."""
        return labels, labels
