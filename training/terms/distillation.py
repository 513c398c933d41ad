"""What a teacher says of a step's queries."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import Self

from xmc.config import TrainConfig
from xmc.kernels.losses import LOSSES
from xmc.training.terms.base import EmbeddedStep, Term
from xmc.training.terms.losses import ranking_loss

__all__ = ["DistillationTerm", "share_of_data"]


class DistillationTerm(Term):
    """Softmax cross-entropy to the teacher's labels, weighted by what it says of each.

    Excluded pairs, and positives that the teacher does not name, count nowhere in it.
    """

    name = "distillation"

    @classmethod
    def from_config(cls, config: TrainConfig) -> Self | None:
        """With a teacher."""
        distillation = config.objective.distillation
        return cls(distillation.weight) if distillation.teacher else None

    def loss(self, step: EmbeddedStep) -> Tensor:
        """The loss."""
        assert step.taught is not None
        loss = LOSSES["softmax"]
        return ranking_loss(loss, step, step.queries, step.labels, step.taught, step.log_inclusion)


def share_of_data(config: TrainConfig) -> float:
    """The share of the objective that the data's own positives have, beside a teacher."""
    distillation = config.objective.distillation
    return 1.0 - distillation.weight if distillation.teacher else 1.0
