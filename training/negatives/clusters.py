"""Batches of similar queries, whose positives are hard negatives of one another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import Self

from xmc.config import ClustersConfig
from xmc.kernels.clustering import balanced_clusters
from xmc.training.checkpoints import Checkpoint
from xmc.training.negatives.base import NegativeSource
from xmc.training.parts import PartState, TrainingRun
from xmc.training.query_bank import query_embeddings
from xmc.training.randomness import Purpose, seed_for

__all__ = ["Clusters"]


class Clusters(NegativeSource):
    """No labels of its own: from `first_epoch` on, batches are made of whole clusters of similar queries.

    Source: NGAME, Dahiya et al., WSDM 2023.
    """

    name = kind = "clusters"
    needs_queries = True

    def __init__(self, config: ClustersConfig, batch_size: int, seed: int) -> None:
        self.config, self.batch_size, self.seed = config, batch_size, seed
        self.clusters: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        """int32 [N], the cluster of each query; kept over `refresh_epochs` epochs."""
        self.clusters_of = -1
        """The epoch that they were made for."""

    @classmethod
    def from_run(cls, run: TrainingRun) -> Self:
        """Without clusters yet."""
        return cls(run.config.negatives_of(ClustersConfig), run.config.batch_size, run.config.seed)

    def groups(self, run: TrainingRun, epoch: int) -> npt.NDArray[np.int32] | None:
        """The clusters of an epoch (counted from 0), made anew where they are due; None before `first_epoch`."""
        if not self.are_due(epoch):
            return self.clusters if epoch + 1 >= self.config.first_epoch else None
        return self.cluster(epoch, query_embeddings(run))

    def are_due(self, epoch: int) -> bool:
        """Whether an epoch wants new clusters; not where a resumed run is in the middle of it."""
        settings = self.config
        if epoch + 1 < settings.first_epoch or self.clusters_of == epoch:
            return False
        due = (epoch + 1 - settings.first_epoch) % settings.refresh_epochs == 0
        return due or not len(self.clusters) or epoch + 1 in settings.doubling_epochs

    def cluster(self, epoch: int, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Make the clusters of an epoch from the embeddings [N, D] of all queries."""
        size = self.config.size * 2 ** sum(epoch + 1 >= start for start in self.config.doubling_epochs)
        count = max(1, len(embeddings) // min(size, self.batch_size))
        self.clusters = balanced_clusters(embeddings, count, seed=seed_for(self.seed, epoch, Purpose.CLUSTERS))
        self.clusters_of = epoch
        return self.clusters

    def state(self) -> PartState:
        """The clusters and their epoch."""
        if not len(self.clusters):
            return PartState()
        held = {"clusters": self.clusters, "clusters_of": np.array(self.clusters_of)}
        return PartState({f"batches.{name}": torch.from_numpy(value) for name, value in held.items()})

    def load_state(self, run: TrainingRun, checkpoint: Checkpoint) -> None:
        """Take up what `state` gave."""
        if "batches.clusters" in checkpoint.names:
            self.clusters = checkpoint.tensor("batches.clusters").numpy()
            self.clusters_of = int(checkpoint.tensor("batches.clusters_of"))
