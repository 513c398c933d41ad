"""What a step minimises: a weighted sum of terms, at every nested dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.config import TrainConfig
from xmc.errors import ConfigError
from xmc.training.distributed import World
from xmc.training.negatives import StepLabels
from xmc.training.terms import EmbeddedStep, terms_of

__all__ = ["Objective"]


class Objective:
    """The loss of a step: the sum of its terms, each by its weight (see xmc.training.terms).

    With nested dimensions it is the mean over embeddings cut to each of them and whole ones. Where no term needs all labels,
    these are split over the processes. Else every process scores all labels of the step, and its loss counts as one over the
    number of processes.
    """

    def __init__(
        self,
        config: TrainConfig,
        dimension: int,
        world: World,
        multiplied: torch.dtype | None = None,
        propensities: Tensor | None = None,
    ) -> None:
        """multiplied: the type in which queries meet labels, with sums of float32; None for that of the embeddings.

        propensities: float32 [L], for a loss that is corrected by them; such a loss scores all labels in every step.
        Raises ConfigError for nested dimensions that are not below `dimension`, that of the embeddings.
        """
        self.multiplied, self.propensities = multiplied, propensities
        nested_dimensions = config.objective.nested_dimensions
        if any(nested >= dimension for nested in nested_dimensions):
            raise ConfigError(
                f"objective.nested_dimensions must be below the {dimension} of the encoder, but are "
                f"{list(nested_dimensions)}."
            )
        self.world, self.normalize, self.config = world, config.normalize, config
        self.dimensions = (*nested_dimensions, dimension)
        self.terms = terms_of(config)
        self.needs_texts = any(term.needs_texts for term in self.terms)
        """Whether some term is a function of the labels' texts alone."""
        self.repeated = world.size > 1 and any(term.needs_all_labels for term in self.terms)
        """Whether every process computes the same loss from all labels."""

    def __call__(
        self,
        queries: Tensor,
        labels: Tensor,
        texts: Tensor | None,
        step: StepLabels,
        scored: slice,
        temperature: Tensor,
    ) -> Tensor:
        """The loss, a scalar; the sum of the processes' gradients is its gradient.

        queries [B, D]: of all processes. labels, texts [C', D]: of the step's labels that are this process's, `scored` among
        them; texts where `needs_texts`.
        """
        device = queries.device
        if self.propensities is not None:  # moved once
            self.propensities = self.propensities.to(device)
        if self.repeated:
            labels, texts = self.world.gather(labels), None if texts is None else self.world.gather(texts)
        embedded = EmbeddedStep(
            queries,
            labels,
            texts,
            step.targets,
            step.taught,
            None if step.log_inclusion is None else step.log_inclusion.to(device, non_blocking=device.type == "cuda"),
            temperature,
            None if self.repeated else self.world.shard(scored.start, len(step.rows)),
            self.config.tile_bytes,
            self.config.keep_bytes,
            self.multiplied,
            self.propensities,
        )
        losses = [self._at(embedded.cut(dimension, self.normalize)) for dimension in self.dimensions]
        loss = torch.stack(losses).mean()
        return loss / self.world.size if self.repeated else loss

    def reported(self, loss: Tensor) -> float:
        """The loss as one process has it."""
        return float(loss.detach()) * (self.world.size if self.repeated else 1)

    def _at(self, step: EmbeddedStep) -> Tensor:
        """At one dimension."""
        total: Tensor = torch.zeros((), device=step.queries.device)
        for term in self.terms:
            total = total + term.weight * term.loss(step)
        return total
