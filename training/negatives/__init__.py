"""Sources of negatives, by kind: to add one is to write a file and register its class here."""

from __future__ import annotations

from xmc.config import TrainConfig
from xmc.registry import Registry
from xmc.training.negatives.all_labels import AllLabels
from xmc.training.negatives.bank import BankedLabels
from xmc.training.negatives.base import NegativeSource, StepLabels
from xmc.training.negatives.clusters import Clusters
from xmc.training.negatives.in_batch import InBatch
from xmc.training.negatives.joined import JoinedNegatives
from xmc.training.negatives.sampled import Sampled
from xmc.training.negatives.shortlist import Shortlist

__all__ = ["NEGATIVES", "JoinedNegatives", "NegativeSource", "StepLabels", "negative_kinds"]

NEGATIVES: Registry[type[NegativeSource]] = Registry("kind of negatives")
for member in (AllLabels, BankedLabels, InBatch, Sampled, Shortlist, Clusters):
    NEGATIVES.register(member.kind, member)


def negative_kinds(config: TrainConfig) -> list[type[NegativeSource]]:
    """The sources that a configuration names, in its order; ConfigError for a kind that is not registered."""
    return [NEGATIVES[section.kind] for section in config.negatives]
