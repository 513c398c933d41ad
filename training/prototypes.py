"""What label prototypes are made of while training: clusters of labels, and centroids of each label's queries."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from xmc.config import TrainConfig
from xmc.encoders.prototypes import LabelPrototypes
from xmc.kernels.clustering import balanced_clusters
from xmc.training.checkpoints import Checkpoint
from xmc.training.randomness import Purpose, seed_for, torch_random

__all__ = ["Centroids", "add_prototypes", "query_centroids"]


def add_prototypes(dimension: int, labels: int, config: TrainConfig) -> LabelPrototypes:
    """The untrained network for so many labels: no more free vectors than labels."""
    options = config.prototypes
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(config.seed, 0, Purpose.PROTOTYPES))
        return LabelPrototypes(
            dimension, min(options.clusters, max(labels, 1)), options.heads, options.feedforward, options.dropout
        )


class Centroids:
    """Clusters and query centroids of this process's labels (PRIME, Dahiya et al., NAACL 2025).

    centroids "stale": the mean of the embeddings that a label's queries had when they were last in a batch, made anew before
    each epoch; "moving_average": moved at each step towards the mean of the batch's queries. Either way they begin, and a
    model that is evaluated or saved has them, as the mean of all queries' embeddings by the model as it then is.
    """

    def __init__(self, prototypes: LabelPrototypes, positives: csr_matrix, labels: slice, config: TrainConfig) -> None:
        """positives: CSR [N, L] of the training queries. labels: which of them are this process's."""
        self.prototypes, self.labels, self.config = prototypes, labels, config
        transposed = csr_matrix(positives.T)[labels]
        self.queries = csr_matrix(
            (np.ones(transposed.nnz, np.float32), transposed.indices, transposed.indptr), transposed.shape
        )

    def begin(self, texts: Tensor, embeddings: npt.NDArray[np.float32]) -> None:
        """Cluster all labels by their unit text embeddings [L, D], and take the centroids of the queries' [N, D]."""
        options, seed = self.config.prototypes, self.config.seed
        count = len(self.prototypes.free_vectors)
        clusters = balanced_clusters(texts.float().cpu().numpy(), count, seed=seed_for(seed, 0, Purpose.CLUSTERS))
        chosen = torch.from_numpy(clusters.astype(np.int64))
        random = torch_random(seed, 0, Purpose.PROTOTYPES) if options.initial == "xavier" else None
        self.prototypes.begin(texts, chosen, random)
        self.prototypes.clusters = chosen[self.labels]
        self.renew(embeddings)

    def renew(self, embeddings: npt.NDArray[np.float32]) -> None:
        """The centroids of the queries' embeddings [N, D]."""
        self.prototypes.centroids, self.prototypes.has_queries = query_centroids(self.queries, embeddings)

    def move(self, positives: csr_matrix, embeddings: Tensor) -> None:
        """Towards a batch's queries [B, D], where it is moving averages that are wanted. positives: CSR [B, L]."""
        if self.config.prototypes.centroids != "moving_average":
            return
        transposed = csr_matrix(positives.T)[self.labels]
        transposed.data = np.ones_like(transposed.data, np.float32)
        rows = np.flatnonzero(np.diff(transposed.indptr))
        means, _ = query_centroids(transposed[rows], embeddings.float().cpu().numpy())
        self.prototypes.centroids[rows] = self.prototypes.centroids[rows].lerp(
            means, 1 - self.config.prototypes.momentum
        )

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds of this process's labels."""
        prototypes = self.prototypes
        return {"prototypes.clusters": prototypes.clusters, "prototypes.centroids": prototypes.centroids}

    def load_state(self, checkpoint: Checkpoint) -> None:
        """Take up what `state` gave."""
        self.prototypes.clusters = checkpoint.tensor("prototypes.clusters", self.labels)
        self.prototypes.centroids = checkpoint.tensor("prototypes.centroids", self.labels)
        self.prototypes.has_queries = torch.from_numpy(np.diff(self.queries.indptr) > 0)


def query_centroids(queries: csr_matrix, embeddings: npt.NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Of L labels, the mean embedding [L, D] of each one's queries, zero where it has none, and whether it has any, bool [L].

    queries: CSR [L, N] of ones, which queries each label has. embeddings: float32 [N, D] of the queries.
    """
    counts = np.diff(queries.indptr)
    sums = np.asarray(queries @ embeddings, np.float32)
    return torch.from_numpy(sums / np.maximum(counts, 1)[:, None].astype(np.float32)), torch.from_numpy(counts > 0)
