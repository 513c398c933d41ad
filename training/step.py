"""One step: encode a batch and its labels, score, and leave gradients behind."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from xmc.config import ResidualConfig
from xmc.data.tokens import RaggedTokens
from xmc.encoders.dual import keep_vectors
from xmc.encoders.transfer import on_device
from xmc.training.batch import Batch, StepReport
from xmc.training.caching import caching_of_run
from xmc.training.gradient_cache import GradientCache
from xmc.training.micro_batches import StepEncoder
from xmc.training.negatives import JoinedNegatives, StepLabels
from xmc.training.objective import Objective
from xmc.training.parts import TrainingRun
from xmc.training.randomness import Purpose, seed_for, torch_random
from xmc.training.terms.losses import configured_propensities

__all__ = ["Step"]


class Step:
    """Forward and backward of a batch. Embeddings live no longer than a call."""

    def __init__(self, run: TrainingRun, negatives: JoinedNegatives) -> None:
        self.run, self.negatives = run, negatives
        self.encoder = GradientCache() if caching_of_run(run).cached else StepEncoder()
        # A GPU multiplies float32 without its tensor cores; embeddings that come of bfloat16 lose little by that.
        multiplied = torch.bfloat16 if run.device.type == "cuda" and run.precision == "bfloat16" else None
        propensities = configured_propensities(run.config, run.data.known.targets)
        self.objective = Objective(run.config, run.model.dimension, run.world, multiplied, propensities)

    def dropped_queries(self, batch: Batch) -> RaggedTokens:
        """The tokens that this step sees of this process's part of the batch's queries."""
        run = self.run
        random = torch_random(run.config.seed, batch.step, Purpose.QUERY_TOKENS)
        features = run.data.query_features.take(batch.rows)
        dropped = run.model.query_encoder.drop(features, run.config.data.token_dropout, random, "query")
        return self._own_rows(dropped, run.world.own(len(batch.rows)))

    def __call__(self, batch: Batch, query_features: RaggedTokens) -> StepReport:
        """Add the gradients of the batch's loss to what the parameters have. query_features: from `dropped_queries`."""
        config, model, world = self.run.config, self.run.model, self.run.world
        self.encoder.begin(lambda number: seed_for(config.seed, batch.step, Purpose.BACKBONE, world.rank, number))
        with self.run.clock.of("encode"):
            queries = world.gather(model.queries(query_features, self.encoder.encode))
        with self.run.clock.of("data"):
            step_labels = self.negatives.labels_of(batch, queries.detach())
            # Of the labels that are scored and of those that are encoded, this process has the ones that it owns.
            scored = world.own_of(step_labels.rows, len(self.run.data.label_features))
            encoded = world.own_of(step_labels.fresh, len(self.run.data.label_features))
            label_features = self._dropped_labels(batch.step, step_labels.fresh, encoded)
        with self.run.clock.of("encode"):
            texts = model.label_texts(label_features, self.encoder.encode)
            texts = self.negatives.completed(texts, step_labels, encoded, batch.step)
            labels = self._labels(texts, step_labels, scored, batch.step)
            roots = [queries, labels, *([texts] if self.objective.needs_texts else [])]
            del queries, labels, texts
        with self.run.clock.of("loss"):
            # The loss sees leaves, so that its own gradient can be told apart from the encoders'.
            leaves = [root.detach().requires_grad_() for root in roots]
            embedded, alone = leaves[0].detach(), leaves[2] if self.objective.needs_texts else None
            loss = self.objective(leaves[0], leaves[1], alone, step_labels, scored, model.temperature)
            loss.backward()
            del alone
        with self.run.clock.of("encode"):
            self._backward(roots, leaves)
        tokens = len(query_features.values) + len(label_features.values)
        texts_encoded = len(query_features) + len(label_features)
        return StepReport(self.objective.reported(loss), texts_encoded, tokens, embedded)

    def _labels(self, texts: Tensor, step_labels: StepLabels, scored: slice, step: int) -> Tensor:
        """Embeddings [C', D] of this process's scored labels, given those of their texts."""
        config = self.run.config
        random = torch_random(config.seed, step, Purpose.LABEL_VECTORS)
        residual = ResidualConfig.of(config.label_vectors)
        kept = keep_vectors(len(step_labels.rows), 0.0 if residual is None else residual.dropout, random)
        rows = step_labels.rows[scored] - self.run.labels.start
        return self.run.model.labels(texts, on_device(rows, self.run.device), None if kept is None else kept[scored])

    def _backward(self, roots: list[Tensor], leaves: list[Tensor]) -> None:
        """Let the gradients of the leaves run into the parameters behind the roots; both lists are used up."""
        pairs = [(root, leaf.grad) for root, leaf in zip(roots, leaves, strict=True)]
        roots.clear()
        leaves.clear()
        pairs = [(root, gradient) for root, gradient in pairs if root.requires_grad and gradient is not None]
        if pairs:
            torch.autograd.backward([root for root, _ in pairs], [gradient for _, gradient in pairs])
        del pairs
        self.encoder.backward()

    def _dropped_labels(self, step: int, rows: Tensor, own: slice) -> RaggedTokens:
        """Tokens of rows[own]; the random numbers are drawn for all rows, so that they do not depend on the world's size."""
        features = self.run.data.label_features
        if len(rows) < len(features):
            features = features.take(rows.numpy())
        random = torch_random(self.run.config.seed, step, Purpose.LABEL_TOKENS)
        dropped = self.run.model.label_encoder.drop(features, self.run.config.data.label_token_dropout, random, "label")
        return self._own_rows(dropped, own)

    def _own_rows(self, features: RaggedTokens, own: slice) -> RaggedTokens:
        return features if self.run.world.size == 1 else features.take(np.arange(own.start, own.stop))
