"""Which parts a configuration's run has."""

from __future__ import annotations

from xmc.config import PrototypesConfig, TrainConfig
from xmc.training.bags import BagLabels
from xmc.training.negatives import negative_kinds
from xmc.training.optimizers.updates import Updates
from xmc.training.parts import TrainingPart
from xmc.training.prototypes import Centroids
from xmc.training.query_bank import QueryBank
from xmc.training.supervision.part import Supervision
from xmc.training.weights import Weights

__all__ = ["part_kinds"]


def part_kinds(config: TrainConfig) -> list[type[TrainingPart]]:
    """The parts of a run, in the order in which they are asked: parameters move last."""
    kinds: list[type[TrainingPart]] = [Centroids] if PrototypesConfig.of(config.label_vectors) is not None else []
    kinds += negative_kinds(config)
    if any(kind.needs_queries for kind in kinds):
        kinds.insert(0, QueryBank)
    bags: list[type[TrainingPart]] = [BagLabels] if config.data.bags.is_on else []
    supervision: list[type[TrainingPart]] = [Supervision] if config.supervision.estimator != "none" else []
    return [Weights, *bags, *supervision, *kinds, Updates]
