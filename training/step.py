"""One step: encode a batch and its labels, score, and leave gradients behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from xmc.config import TrainConfig
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder
from xmc.encoders.dual import DualEncoder, keep_vectors
from xmc.kernels.statistics import Positives
from xmc.kernels.topk import topk_inner_product
from xmc.training.bank import BankReport, LabelBank
from xmc.training.clock import Clock
from xmc.training.data import TrainingData
from xmc.training.distributed import World
from xmc.training.gradient_cache import GradientCache
from xmc.training.negatives import Batch, Negatives
from xmc.training.objective import Objective
from xmc.training.randomness import Purpose, seed_for, torch_random

__all__ = ["Step", "StepReport", "is_out_of_memory"]


@dataclass(frozen=True)
class StepReport:
    """The loss, the texts and tokens that this process encoded with gradient, how stale the bank was (where there is one),
    and the queries' embeddings [B, D], without gradient."""

    loss: float
    texts: int
    tokens: int
    bank: BankReport | None = None
    queries: Tensor | None = None


class Step:
    """Forward and backward of a batch. Embeddings live no longer than a call."""

    def __init__(
        self,
        config: TrainConfig,
        model: DualEncoder,
        data: TrainingData,
        negatives: Negatives,
        bank: LabelBank | None,
        device: torch.device,
        world: World,
    ) -> None:
        self.config, self.model, self.data = config, model, data
        self.negatives, self.bank, self.device, self.world = negatives, bank, device, world
        self.labels = world.own(len(data.label_features))
        self.clock = Clock()
        self.cache = GradientCache(self._autocast) if config.gradient_cache else None
        self.objective = Objective(config, model.dimension, world)

    def dropped_queries(self, batch: Batch) -> RaggedTokens:
        """The tokens that this step sees of this process's part of the batch's queries."""
        random = torch_random(self.config.seed, batch.step, Purpose.QUERY_TOKENS)
        features = self.data.query_features.take(batch.rows)
        dropped = self.model.query_encoder.drop(features, self.config.token_dropout, random, "query")
        return self._own_rows(dropped, self.world.own(len(batch.rows)))

    def run(self, batch: Batch, query_features: RaggedTokens) -> StepReport:
        """Gradients of the batch's loss, added to what the parameters have. query_features: from `dropped_queries`."""
        config, model, clock, world = self.config, self.model, self.clock, self.world
        torch.manual_seed(seed_for(config.seed, batch.step, Purpose.BACKBONE, world.rank))
        with clock.of("encode"):
            queries = world.gather(model.queries(query_features, self._encode))
        with clock.of("data"):
            candidates = self.negatives.candidates(batch, self._hardest(queries.detach(), batch.known))
            # Of the labels that are scored and of those that are encoded, this process has the ones that it owns.
            scored = world.own_of(candidates.rows, len(self.data.label_features))
            encoded = world.own_of(candidates.fresh, len(self.data.label_features))
            label_features = self._dropped_labels(batch.step, candidates.fresh, encoded)
        with clock.of("encode"):
            texts, report = model.label_texts(label_features, self._encode), None
            if self.bank is not None:
                fresh = candidates.fresh[encoded] - self.labels.start
                if candidates.weights is not None:
                    texts = _Weighted.apply(texts, candidates.weights[encoded].to(texts)[:, None])  # type: ignore[no-untyped-call]
                texts, report = self.bank.renew(fresh.to(self.device), texts, batch.step)
                report = report.over(world, len(self.bank), len(fresh))
            random = torch_random(config.seed, batch.step, Purpose.LABEL_VECTORS)
            kept = keep_vectors(len(candidates.rows), config.label_vector_dropout, random)
            rows = candidates.rows[scored] - self.labels.start
            labels = model.labels(texts, rows.to(self.device), None if kept is None else kept[scored])
            roots = [queries, labels, *([texts] if self.objective.with_texts else [])]
            del texts, labels
        with clock.of("loss"):
            # The loss sees leaves, so that its own gradient can be told apart from the encoders'.
            leaves = [root.detach().requires_grad_() for root in roots]
            embedded, alone = leaves[0], leaves[2] if self.objective.with_texts else None
            loss = self.objective(embedded, leaves[1], alone, candidates, scored, self.model.temperature)
            loss.backward()
        with clock.of("encode"):
            pairs = [(root, leaf.grad) for root, leaf in zip(roots, leaves, strict=True)]
            del queries, roots, leaves, alone
            pairs = [(root, gradient) for root, gradient in pairs if root.requires_grad and gradient is not None]
            if pairs:
                torch.autograd.backward([root for root, _ in pairs], [gradient for _, gradient in pairs])
            del pairs
            if self.cache is not None:
                self.cache.backward()
        tokens = len(query_features.values) + len(label_features.values)
        texts_encoded = len(query_features) + len(label_features)
        return StepReport(self.objective.reported(loss), texts_encoded, tokens, report, embedded.detach())

    def _encode(self, encoder: Encoder, features: RaggedTokens) -> Tensor:
        if self.cache is not None:
            return self.cache.encode(encoder, features)
        with self._autocast():
            embeddings: Tensor = encoder(features)
        return embeddings

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _dropped_labels(self, step: int, rows: Tensor, own: slice) -> RaggedTokens:
        """Tokens of rows[own]; the random numbers are drawn for all rows, so that they do not depend on the world's size."""
        features = self.data.label_features
        if len(rows) < len(features):
            features = features.take(rows.numpy())
        random = torch_random(self.config.seed, step, Purpose.LABEL_TOKENS)
        dropped = self.model.label_encoder.drop(features, self.config.label_token_dropout, random, "label")
        return self._own_rows(dropped, own)

    def _own_rows(self, features: RaggedTokens, own: slice) -> RaggedTokens:
        return features if self.world.size == 1 else features.take(np.arange(own.start, own.stop))

    @torch.no_grad()
    def _hardest(self, queries: Tensor, known: csr_matrix) -> Tensor | None:
        """The labels that score highest by the bank and are not known to be true, of all queries together."""
        if self.bank is None or not self.negatives.hard:
            return None
        texts = self.bank.embeddings.to(queries.dtype)
        labels = self.model.labels(texts, torch.arange(len(texts), device=self.device))
        exclude = Positives.from_scipy(known[:, self.labels])
        scores, places = topk_inner_product(queries, labels, self.negatives.hard, exclude=exclude)
        rows = torch.where(places >= 0, places + self.labels.start, -1)
        # of each process's best, transposed so that processes may have different numbers of them
        scores, rows = self.world.gather(scores.T.contiguous()).T, self.world.gather(rows.T.contiguous()).T
        best = rows.gather(1, scores.topk(min(self.negatives.hard, scores.shape[1]), dim=1).indices)
        hardest: Tensor = best[best >= 0].unique()
        return hardest.cpu()


class _Weighted(torch.autograd.Function):
    """The rows as they are, their gradients times weights [n, 1]."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.saved_tensors[0], None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, on a GPU or a CPU, could not allocate."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
