"""Prototypes should beat the texts of their labels."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import Self

from xmc.config import PrototypesConfig, TrainConfig
from xmc.kernels.losses import prototype_regularisation
from xmc.training.terms.base import EmbeddedStep, Term
from xmc.training.terms.distillation import share_of_data

__all__ = ["PrototypeRegularisationTerm"]


class PrototypeRegularisationTerm(Term):
    """The lead of prototypes over texts, on positives and the hardest negatives (PRIME, Dahiya et al., NAACL 2025)."""

    name = "prototype regularisation"
    needs_texts = True
    needs_all_labels = True

    def __init__(self, weight: float, negatives: int) -> None:
        """negatives: number of the hardest labels of each query."""
        super().__init__(weight)
        self.negatives = negatives

    @classmethod
    def from_config(cls, config: TrainConfig) -> Self | None:
        """With prototypes."""
        prototypes = PrototypesConfig.of(config.label_vectors)
        if prototypes is None:
            return None
        weight = share_of_data(config) * prototypes.regularisation
        return cls(weight, prototypes.regularisation_negatives) if weight else None

    def loss(self, step: EmbeddedStep) -> Tensor:
        """The loss."""
        assert step.texts is not None
        positives, exclude = step.targets.pairs_on(step.queries.device)
        return prototype_regularisation(
            step.queries, step.texts, step.labels, positives, k=self.negatives, exclude=exclude
        )
