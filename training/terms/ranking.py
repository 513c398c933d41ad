"""The configured loss of queries against labels."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import Self

from xmc.config import TrainConfig
from xmc.kernels.losses import Loss
from xmc.training.terms.base import EmbeddedStep, Term
from xmc.training.terms.distillation import share_of_data
from xmc.training.terms.losses import configured_loss, ranking_loss

__all__ = ["RankingTerm"]


class RankingTerm(Term):
    """Queries against labels, as search scores them."""

    name = "ranking"

    def __init__(self, weight: float, loss: Loss) -> None:
        super().__init__(weight)
        self.ranked = loss

    @classmethod
    def from_config(cls, config: TrainConfig) -> Self | None:
        """Always, unless a teacher has all the weight."""
        weight = share_of_data(config)
        return cls(weight, configured_loss(config)) if weight else None

    @property
    def needs_all_labels(self) -> bool:
        """Where the hardest labels are compared."""
        return not self.ranked.splits_labels

    def loss(self, step: EmbeddedStep) -> Tensor:
        """The loss."""
        return ranking_loss(
            self.ranked, step, step.queries, step.labels, step.targets, step.log_inclusion, step.propensities
        )
