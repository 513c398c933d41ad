"""The configured loss of queries against the texts of labels, beside that of their prototypes."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import Self

from xmc.config import TrainConfig
from xmc.training.terms.base import EmbeddedStep, Term
from xmc.training.terms.distillation import share_of_data
from xmc.training.terms.losses import RankingLoss

__all__ = ["TextRankingTerm"]


class TextRankingTerm(Term):
    """Queries against labels by their texts alone (PRIME, Dahiya et al., NAACL 2025, eq. 6)."""

    name = "text ranking"
    needs_texts = True
    needs_all_labels = True

    def __init__(self, weight: float, function: RankingLoss) -> None:
        super().__init__(weight)
        self.function = function

    @classmethod
    def from_config(cls, config: TrainConfig) -> Self | None:
        """With prototypes."""
        if config.label_vectors != "prototypes":
            return None
        weight = share_of_data(config) * config.prototypes.text_weight
        return cls(weight, RankingLoss(config)) if weight else None

    def loss(self, step: EmbeddedStep) -> Tensor:
        """The loss."""
        assert step.texts is not None
        return self.function(step, step.queries, step.texts, step.targets, step.log_inclusion)
