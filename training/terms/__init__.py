"""Terms of the objective, by name: to add one is to write a file and register its class here."""

from __future__ import annotations

from xmc.config import TrainConfig
from xmc.registry import Registry
from xmc.training.terms.base import EmbeddedStep, Term
from xmc.training.terms.distillation import DistillationTerm
from xmc.training.terms.label_to_query import LabelToQueryTerm
from xmc.training.terms.prototype_regularisation import PrototypeRegularisationTerm
from xmc.training.terms.ranking import RankingTerm
from xmc.training.terms.text_ranking import TextRankingTerm

__all__ = ["TERMS", "EmbeddedStep", "Term", "terms_of"]

TERMS: Registry[type[Term]] = Registry("term of the objective")
for member in (RankingTerm, TextRankingTerm, LabelToQueryTerm, PrototypeRegularisationTerm, DistillationTerm):
    TERMS.register(member.name, member)


def terms_of(config: TrainConfig) -> list[Term]:
    """The terms that a configuration asks for, in the order of the registry."""
    terms = (kind.from_config(config) for kind in TERMS.values())
    return [term for term in terms if term is not None]
