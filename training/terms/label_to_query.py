"""The configured loss of the texts of labels against queries."""

from __future__ import annotations

from torch import Tensor

from xmc.config import PrototypesConfig
from xmc.training.terms.base import EmbeddedStep
from xmc.training.terms.losses import ranking_loss
from xmc.training.terms.of_texts import TermOfTexts

__all__ = ["LabelToQueryTerm"]


class LabelToQueryTerm(TermOfTexts):
    """Texts of labels against queries, which compete for a label (PRIME, Dahiya et al., NAACL 2025, eq. 6)."""

    name = "label to query"

    @staticmethod
    def configured_weight(prototypes: PrototypesConfig) -> float:
        """`label_to_query_weight`."""
        return prototypes.label_to_query_weight

    def loss(self, step: EmbeddedStep) -> Tensor:
        """The loss; the sample of labels needs no correction, since all queries of the batch compete."""
        assert step.texts is not None
        return ranking_loss(self.ranked, step, step.texts, step.queries, step.targets.transposed(), None)
