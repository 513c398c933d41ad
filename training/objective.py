"""What a step minimises: the configured loss, of prototypes and texts, at every nested dimension, and what a teacher says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xmc.config import TrainConfig
from xmc.encoders.dual import unit
from xmc.errors import ConfigError
from xmc.kernels import losses
from xmc.kernels.positives import Positives
from xmc.training.distributed import World
from xmc.training.negatives import Candidates

__all__ = ["Objective", "transposed"]


@dataclass(frozen=True)
class _Pairs:
    """A batch's positives, excluded pairs and taught pairs on the device."""

    positives: Positives
    exclude: Positives | None
    taught: Positives | None
    log_inclusion: Tensor | None


class Objective:
    """The loss of a batch, from embeddings of its queries and of the labels that it scores.

    With label vectors "prototypes" it is the sum, weighted as configured, of the loss of queries against prototypes, queries
    against texts, texts against queries, and the regularisation of prototypes (PRIME, Dahiya et al., NAACL 2025, eq. 6).
    With nested dimensions it is the mean over embeddings cut to each of them and whole ones, and with a teacher the mean,
    weighted as configured, of that and the softmax cross-entropy to the teacher's labels.

    Losses over all labels take their labels split over the processes. Where queries also compete for a label, or the hardest
    negatives are wanted, every process scores all labels of the step, and its loss counts as one over the processes.
    """

    def __init__(self, config: TrainConfig, dimension: int, world: World) -> None:
        """Raises ConfigError for nested dimensions that are not below the embeddings' own."""
        if any(nested >= dimension for nested in config.nested_dimensions):
            raise ConfigError(
                f"nested_dimensions must be below the {dimension} of the encoder, but are {list(config.nested_dimensions)}."
            )
        self.config, self.world = config, world
        self.dimensions = (*config.nested_dimensions, dimension)
        self.with_texts = config.label_vectors == "prototypes"
        """Whether the loss is also one of the labels' texts alone."""
        self.whole = world.size > 1 and (self.with_texts or config.loss == "triplet_margin")

    def __call__(
        self,
        queries: Tensor,
        labels: Tensor,
        texts: Tensor | None,
        candidates: Candidates,
        scored: slice,
        temperature: Tensor,
    ) -> Tensor:
        """The loss, a scalar; the sum of the processes' gradients is its gradient.

        queries [B, D]: of all processes. labels, texts [C', D]: of those candidates that are this process's, at the places
        `scored`; texts where `with_texts`.
        """
        device = queries.device
        pairs = _Pairs(
            candidates.positives.to(device),
            None if candidates.exclude is None else candidates.exclude.to(device),
            None if candidates.taught is None else candidates.taught.to(device),
            None if candidates.log_inclusion is None else candidates.log_inclusion.to(device),
        )
        shard = None
        if self.whole:
            labels, texts = self.world.gather(labels), None if texts is None else self.world.gather(texts)
        else:
            shard = self.world.shard(scored.start, len(candidates.rows))
        options: dict[str, Any] = {"tile_bytes": self.config.tile_bytes, "shard": shard}
        terms = []
        for dimension in self.dimensions:
            cut = [None if part is None else self._cut(part, dimension) for part in (queries, labels, texts)]
            terms.append(self._at(cut[0], cut[1], cut[2], pairs, temperature, options))  # type: ignore[arg-type]
        loss = torch.stack(terms).mean()
        return loss / self.world.size if self.whole else loss

    def reported(self, loss: Tensor) -> float:
        """The loss as people know it."""
        return float(loss.detach()) * (self.world.size if self.whole else 1)

    def _cut(self, embeddings: Tensor, dimension: int) -> Tensor:
        if dimension == embeddings.shape[1]:
            return embeddings
        cut = embeddings[:, :dimension]
        return unit(cut) if self.config.normalize else cut

    def _at(
        self,
        queries: Tensor,
        labels: Tensor,
        texts: Tensor | None,
        pairs: _Pairs,
        temperature: Tensor,
        options: dict[str, Any],
    ) -> Tensor:
        """At one dimension."""
        distillation = self.config.distillation
        total: Tensor = torch.zeros((), device=queries.device)
        own = 1.0 if pairs.taught is None else 1 - distillation.weight
        if own:
            loss = self._ranked(queries, labels, pairs, temperature, options)
            if texts is not None:
                loss = loss + self._of_texts(queries, labels, texts, pairs, temperature, options)
            total = total + own * loss
        if pairs.taught is not None:
            # The teacher's labels are the positives, and every other label a negative.
            more = options if pairs.log_inclusion is None else {**options, "log_inclusion": pairs.log_inclusion}
            taught = losses.softmax(queries, labels, pairs.taught, temperature, **more)
            total = total + distillation.weight * taught
        return total

    def _of_texts(
        self,
        queries: Tensor,
        prototypes: Tensor,
        texts: Tensor,
        pairs: _Pairs,
        temperature: Tensor,
        options: dict[str, Any],
    ) -> Tensor:
        """What is added to the loss of the prototypes."""
        weights, exclude = self.config.prototypes, pairs.exclude
        total = queries.new_zeros(())
        if weights.text_weight:
            total = total + weights.text_weight * self._ranked(queries, texts, pairs, temperature, options)
        if weights.label_to_query_weight:
            turned = _Pairs(
                transposed(pairs.positives, len(texts)),
                None if exclude is None else transposed(exclude, len(texts)),
                None,
                None,
            )
            total = total + weights.label_to_query_weight * self._ranked(texts, queries, turned, temperature, options)
        if weights.regularisation:
            regularised = losses.prototype_regularisation(
                queries, texts, prototypes, pairs.positives, k=self.config.margin.negatives, exclude=exclude
            )
            total = total + weights.regularisation * regularised
        return total

    def _ranked(
        self, queries: Tensor, labels: Tensor, pairs: _Pairs, temperature: Tensor, options: dict[str, Any]
    ) -> Tensor:
        """The configured loss of some queries against some labels."""
        if self.config.loss == "triplet_margin":
            margin = self.config.margin
            return losses.triplet_margin(
                queries,
                labels,
                pairs.positives,
                k=margin.negatives,
                margins=(margin.least, margin.most),
                temperature=margin.temperature,
                exclude=pairs.exclude,
            )
        function: Callable[..., Tensor] = getattr(losses, self.config.loss)
        given = {"exclude": pairs.exclude, "log_inclusion": pairs.log_inclusion}
        return function(
            queries,
            labels,
            pairs.positives,
            temperature,
            **options,
            **{name: value for name, value in given.items() if value is not None},
        )


def transposed(pairs: Positives, labels: int) -> Positives:
    """The pairs of B queries and L labels as rows of L labels, each with its queries; a relevance goes along."""
    order = torch.argsort(pairs.indices.long() * len(pairs) + pairs.rows)
    counts = torch.bincount(pairs.indices.long(), minlength=labels)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    weights = None if pairs.weights is None else pairs.weights[order]
    return Positives(indptr, pairs.rows[order], weights)
