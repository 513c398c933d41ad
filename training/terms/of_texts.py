"""What the terms have in common that score texts of labels apart from their prototypes."""

from __future__ import annotations

from abc import abstractmethod

from typing_extensions import Self

from xmc.config import PrototypesConfig, TrainConfig
from xmc.kernels.losses import Loss
from xmc.training.terms.base import Term
from xmc.training.terms.distillation import share_of_data
from xmc.training.terms.losses import configured_loss

__all__ = ["TermOfTexts"]


class TermOfTexts(Term):
    """The configured loss over the texts of labels alone, where label vectors are prototypes."""

    needs_texts = True
    needs_all_labels = True

    def __init__(self, weight: float, loss: Loss) -> None:
        super().__init__(weight)
        self.ranked = loss

    @staticmethod
    @abstractmethod
    def configured_weight(prototypes: PrototypesConfig) -> float:
        """The weight of the term beside that of the ranking by prototypes."""

    @classmethod
    def from_config(cls, config: TrainConfig) -> Self | None:
        """With prototypes, unless the weight is 0."""
        prototypes = PrototypesConfig.of(config.label_vectors)
        if prototypes is None:
            return None
        weight = share_of_data(config) * cls.configured_weight(prototypes)
        return cls(weight, configured_loss(config)) if weight else None
