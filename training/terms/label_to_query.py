"""The configured loss of the texts of labels against queries."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import Self

from xmc.config import PrototypesConfig, TrainConfig
from xmc.kernels.losses import Loss
from xmc.training.terms.base import EmbeddedStep, Term
from xmc.training.terms.distillation import share_of_data
from xmc.training.terms.losses import configured_loss, ranking_loss

__all__ = ["LabelToQueryTerm"]


class LabelToQueryTerm(Term):
    """Texts of labels against queries, which compete for a label (PRIME, Dahiya et al., NAACL 2025, eq. 6)."""

    name = "label to query"
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
        weight = share_of_data(config) * prototypes.label_to_query_weight
        return cls(weight, configured_loss(config)) if weight else None

    def loss(self, step: EmbeddedStep) -> Tensor:
        """The loss; the sample of labels needs no correction, since all queries of the batch compete."""
        assert step.texts is not None
        return ranking_loss(self.ranked, step, step.texts, step.queries, step.targets.transposed(), None)
