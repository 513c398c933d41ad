"""The configured loss of queries against the texts of labels, beside that of their prototypes."""

from __future__ import annotations

from torch import Tensor

from xmc.config import PrototypesConfig
from xmc.training.terms.base import EmbeddedStep
from xmc.training.terms.losses import ranking_loss
from xmc.training.terms.of_texts import TermOfTexts

__all__ = ["TextRankingTerm"]


class TextRankingTerm(TermOfTexts):
    """Queries against labels by their texts alone (PRIME, Dahiya et al., NAACL 2025, eq. 6)."""

    name = "text ranking"

    @staticmethod
    def configured_weight(prototypes: PrototypesConfig) -> float:
        """`text_weight`."""
        return prototypes.text_weight

    def loss(self, step: EmbeddedStep) -> Tensor:
        """The loss of queries that labels compete for."""
        assert step.texts is not None
        return ranking_loss(self.ranked, step, step.queries, step.texts, step.targets, step.log_inclusion)
