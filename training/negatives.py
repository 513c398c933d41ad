"""Which labels a step scores: all of them, or the batch's positives and a uniform sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from xmc.config import TrainConfig
from xmc.errors import ConfigError
from xmc.kernels.statistics import Positives

__all__ = ["AllLabels", "Candidates", "Negatives", "SampledLabels", "build_negatives"]


@dataclass(frozen=True)
class Candidates:
    """The labels of one step.

    rows: int64 [C], label rows, ascending. positives: of the batch, as positions in `rows`.
    log_inclusion: None where `rows` is every label; else float32 [C], see xmc.kernels.losses.
    """

    rows: Tensor
    positives: Positives
    log_inclusion: Tensor | None


class Negatives(ABC):
    """Chooses the candidates of each batch."""

    @abstractmethod
    def candidates(self, batch: csr_matrix) -> Candidates:
        """Candidates for the queries whose positives are `batch` [B, L] (values: relevance)."""


class AllLabels(Negatives):
    """Every label, at every step (Gupta et al., DEXML, ICLR 2024)."""

    def __init__(self, labels: int, weighted: bool) -> None:
        self.rows = torch.arange(labels)
        self.weighted = weighted

    def candidates(self, batch: csr_matrix) -> Candidates:
        """All labels."""
        return Candidates(self.rows, Positives.from_scipy(batch, self.weighted), None)


class SampledLabels(Negatives):
    """The positives of the batch, and `count` labels drawn uniformly without replacement.

    The inclusion probability of label j with n_j of N training queries, in a batch of B, is
    π_j = 1 - (1 - count / L) · (1 - n_j / N)^B: drawn, or a positive of some query of the batch.
    """

    def __init__(self, training: csr_matrix, count: int, batch_size: float, weighted: bool, seed: int) -> None:
        queries, self.labels = training.shape
        self.count = min(count, self.labels)
        share = np.asarray(training.getnnz(axis=0)) / queries
        missed = (1 - self.count / self.labels) * (1 - share) ** batch_size
        self.log_inclusion = torch.from_numpy(np.log1p(-missed).astype(np.float32))
        self.weighted = weighted
        self.random = np.random.default_rng(seed)

    def candidates(self, batch: csr_matrix) -> Candidates:
        """Positives of the batch and a fresh sample."""
        drawn = self.random.choice(self.labels, self.count, replace=False, shuffle=False)
        rows = np.union1d(drawn, batch.indices).astype(np.int64)
        positives = Positives.from_scipy(batch, self.weighted)
        places = torch.from_numpy(np.searchsorted(rows, positives.indices.numpy()))
        chosen = torch.from_numpy(rows)
        return Candidates(chosen, Positives(positives.indptr, places, positives.weights), self.log_inclusion[chosen])


def build_negatives(config: TrainConfig, training: csr_matrix, batch_size: float) -> Negatives:
    """The negatives that a configuration names, for training positives [N, L] in batches of `batch_size` (mean)."""
    if config.negatives == "all":
        return AllLabels(training.shape[1], config.relevance_weights)
    if config.negatives == "sampled":
        return SampledLabels(training, config.sampled_negatives, batch_size, config.relevance_weights, config.seed)
    raise ConfigError(f"negatives must be all or sampled, but is {config.negatives!r}.")
