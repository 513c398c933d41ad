"""The configured loss, and how a term calls it."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.config import TrainConfig
from xmc.data.targets import Targets
from xmc.kernels.losses import LOSSES, Loss
from xmc.metrics.propensity import propensities
from xmc.training.targets import StepTargets
from xmc.training.terms.base import EmbeddedStep

__all__ = ["configured_loss", "configured_propensities", "ranking_loss"]


def configured_loss(config: TrainConfig) -> Loss:
    """The loss that a configuration names, with its settings."""
    options = config.objective.loss
    settings = options.settings()
    return LOSSES[options.kind].with_settings(**settings) if settings else LOSSES[options.kind]


def configured_propensities(config: TrainConfig, targets: Targets) -> Tensor | None:
    """The propensity of each label, float32 [L], from the training queries; None for a loss that is not corrected by them."""
    model = config.objective.loss.propensity_model
    if model is None:
        return None
    return torch.from_numpy(propensities(targets.positive_counts, len(targets), *model)).float()


def ranking_loss(
    loss: Loss,
    step: EmbeddedStep,
    queries: Tensor,
    labels: Tensor,
    targets: StepTargets,
    log_inclusion: Tensor | None,
    propensities: Tensor | None = None,
) -> Tensor:
    """A loss of queries [B, D] against labels [C, D]; what is not given here is that of the step."""
    if step.multiplied is not None:
        queries, labels = queries.to(step.multiplied), labels.to(step.multiplied)
    positives, exclude = targets.pairs_on(queries.device)
    return loss(
        queries,
        labels,
        positives,
        step.temperature,
        exclude=exclude,
        log_inclusion=log_inclusion,
        propensities=propensities,
        tile_bytes=step.tile_bytes,
        keep_bytes=step.keep_bytes,
        shard=step.shard,
    )
