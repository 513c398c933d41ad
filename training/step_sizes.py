"""What a step has, in the mean, before any is taken: its queries, labels and tokens, and what these take of memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from typing_extensions import Self

from xmc.config import TrainConfig
from xmc.encoders.dual import DualEncoder
from xmc.kernels.budget import tile_budget
from xmc.training.assembly import part_kinds
from xmc.training.device import training_device
from xmc.training.negatives import negative_kinds
from xmc.training.parts import Sizes, steps_of_epoch

__all__ = ["Lengths", "StepSizes"]


@dataclass(frozen=True)
class Lengths:
    """Means over a data set.

    positives: positive labels of a query. query_tokens, label_tokens: of a text.
    """

    positives: float
    query_tokens: float
    label_tokens: float


@dataclass(frozen=True)
class StepSizes:
    """What each process has of a step: labels that are scored, texts that are encoded, and the tokens of these."""

    queries: float
    scored: float
    encoded: float
    tokens: float

    @classmethod
    def expected(cls, sizes: Sizes, lengths: Lengths) -> Self:
        """Of a run's steps, in the mean."""
        config, labels, processes = sizes.config, sizes.labels, sizes.processes
        mean = lengths.positives
        if config.objective.positives_per_query is not None:
            mean = min(mean, config.objective.positives_per_query)
        queries = float(math.ceil(max(1, sizes.queries) / steps_of_epoch(sizes.queries, config.batch_size))) / processes
        scored, encoded = _labels_of_a_step(config, labels, queries * processes, mean)
        scored, encoded = scored / processes, encoded / processes
        tokens = queries * lengths.query_tokens * (1 - config.data.token_dropout)
        tokens += encoded * lengths.label_tokens * (1 - config.data.label_token_dropout)
        return cls(queries, scored, encoded, tokens)

    def memory(self, sizes: Sizes) -> dict[str, float]:
        """Bytes in each process of all but activations, by what takes them."""
        config, processes = sizes.config, sizes.processes
        memory: dict[str, float] = {}
        for kind in part_kinds(config):
            memory |= kind.memory(sizes)
        # Of labels: text embeddings, sums with vectors, unit embeddings and their gradients, about four at a time.
        memory["embeddings of a step"] = (self.queries * processes * 3 + self.encoded + self.scored * 4) * sizes.row
        memory["scores"] = float(
            min(tile_budget(config.tile_bytes, training_device(config)), 4 * self.queries * processes * self.scored)
        )
        return memory

    def activations(self, model: DualEncoder, cached: bool) -> float:
        """Bytes that the encoding of a step holds for the backward pass: of all texts, or, `cached`, of one micro-batch."""
        encoder, tokens = model.query_encoder, self.tokens
        if cached and encoder.tokens_per_micro_batch is not None:
            tokens = min(tokens, float(encoder.tokens_per_micro_batch))
        return tokens * encoder.token_cost().activation_bytes


def _labels_of_a_step(config: TrainConfig, labels: int, queries: float, mean: float) -> tuple[float, float]:
    """Number of labels that are scored, and of those among them that are encoded."""
    positives = min(float(labels), queries * mean)
    scored = encoded = 0.0
    for kind in negative_kinds(config):
        more_scored, more_encoded = kind.count(config, labels, queries, positives)
        scored, encoded = scored + more_scored, encoded + more_encoded
        if kind.scores_all:
            return scored, encoded
    return min(labels, positives + scored), min(labels, positives + encoded)
