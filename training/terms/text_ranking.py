"""The configured loss of queries against the texts of labels, beside that of their prototypes."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import Self

from xmc.config import PrototypesConfig, TrainConfig
from xmc.kernels.losses import Loss
from xmc.training.terms.base import EmbeddedStep, Term
from xmc.training.terms.distillation import share_of_data
from xmc.training.terms.losses import configured_loss, ranking_loss

__all__ = ["TextRankingTerm"]


class TextRankingTerm(Term):
    """Queries against labels by their texts alone (PRIME, Dahiya et al., NAACL 2025, eq. 6)."""

    name = "text ranking"
    needs_texts = True
    needs_all_labels = True

    def __init__(self, weight: float, loss: Loss) -> None:
        super().__init__(weight)
        self.ranked = loss

    @classmethod
    def from_config(cls, config: TrainConfig) -> Self | None:
        """With prototypes."""
        prototypes = PrototypesConfig.of(config.label_vectors)
        if prototypes is None:
            return None
        weight = share_of_data(config) * prototypes.text_weight
        return cls(weight, configured_loss(config)) if weight else None

    def loss(self, step: EmbeddedStep) -> Tensor:
        """The loss."""
        assert step.texts is not None
        return ranking_loss(self.ranked, step, step.queries, step.texts, step.targets, step.log_inclusion)
