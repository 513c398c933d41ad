"""Which queries make up each step: a random order of all of them, cut; or clusters of similar ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from xmc.config import TrainConfig
from xmc.kernels.clustering import balanced_clusters
from xmc.training.checkpoints import Checkpoint
from xmc.training.randomness import Purpose, numpy_random, seed_for

__all__ = ["Batches"]

Rows = npt.NDArray[np.int64]


class Batches:
    """The steps of each epoch: all queries once, in as many equal parts as hold at least `batch_size` queries each.

    With the negatives "clusters", from `clusters.first_epoch` on the parts are made of whole clusters of similar queries
    in random order (NGAME, Dahiya et al., WSDM 2023), so that the queries of a batch have hard labels for each other.
    """

    def __init__(self, config: TrainConfig, queries: int) -> None:
        self.config, self.queries = config, queries
        self.count = max(1, queries // config.batch_size)
        self.clustered = "clusters" in config.negatives.split("+")
        self.clusters: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        """int32 [N], the cluster of each query; kept over `refresh_epochs` epochs."""
        self.clusters_of = -1
        """The epoch that they were made for."""

    @property
    def sizes(self) -> Rows:
        """Queries of each step, int64 [count]."""
        edges = np.linspace(0, self.queries, self.count + 1).round()
        return np.asarray(np.diff(edges), np.int64)

    def epoch(self, epoch: int, embeddings: Callable[[], npt.NDArray[np.float32]]) -> list[Rows]:
        """Rows of each batch of an epoch (counted from 0). embeddings: gives those of all queries, float32 [N, D]."""
        random = numpy_random(self.config.seed, epoch, Purpose.BATCHES)
        settings = self.config.clusters
        if not self.clustered or epoch + 1 < settings.first_epoch:
            return np.array_split(random.permutation(self.queries), self.count)
        due = (epoch + 1 - settings.first_epoch) % settings.refresh_epochs == 0
        due = due or not len(self.clusters) or epoch + 1 in settings.doubling_epochs
        if due and self.clusters_of != epoch:  # else a resumed run is in the middle of it
            size = settings.size * 2 ** sum(epoch + 1 >= start for start in settings.doubling_epochs)
            count = max(1, self.queries // min(size, self.config.batch_size))
            seed = seed_for(self.config.seed, epoch, Purpose.CLUSTERS)
            self.clusters = balanced_clusters(embeddings(), count, seed=seed)
            self.clusters_of = epoch
        order = random.permutation(int(self.clusters.max()) + 1)
        shuffled = random.permutation(self.queries)
        by_cluster = shuffled[np.argsort(order[self.clusters[shuffled]], kind="stable")]
        return np.array_split(by_cluster, self.count)

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds."""
        if not len(self.clusters):
            return {}
        parts = {"clusters": self.clusters, "clusters_of": np.array(self.clusters_of)}
        return {f"batches.{name}": torch.from_numpy(part) for name, part in parts.items()}

    def load_state(self, checkpoint: Checkpoint) -> None:
        """Take up what `state` gave."""
        if "batches.clusters" in checkpoint.names:
            self.clusters = checkpoint.tensor("batches.clusters").numpy()
            self.clusters_of = int(checkpoint.tensor("batches.clusters_of"))
