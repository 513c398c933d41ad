"""What label prototypes are made of while training: clusters of labels, and centroids of each label's queries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from typing_extensions import Self

from xmc.config import PrototypesConfig, TrainConfig
from xmc.encoders.prototypes import LabelPrototypes
from xmc.kernels.clustering import balanced_clusters
from xmc.training.batch import Batch, StepReport
from xmc.training.checkpoints import Checkpoint
from xmc.training.embedding import embed_queries
from xmc.training.parts import PartState, Sizes, TrainingPart, TrainingRun
from xmc.training.query_bank import QueryBank, query_embeddings
from xmc.training.randomness import Purpose, seed_for, torch_random
from xmc.training.targets import StepTargets

__all__ = ["Centroids", "add_prototypes", "query_centroids"]


def add_prototypes(dimension: int, labels: int, config: TrainConfig) -> LabelPrototypes:
    """The untrained network for a number of labels: no more free vectors than labels."""
    options = PrototypesConfig.require(config.label_vectors)
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(config.seed, 0, Purpose.PROTOTYPES))
        return LabelPrototypes(
            dimension, min(options.clusters, max(labels, 1)), options.heads, options.feedforward, options.dropout
        )


class Centroids(TrainingPart):
    """Clusters and query centroids of this process's labels (PRIME, Dahiya et al., NAACL 2025).

    centroids "stale": the mean of the embeddings that a label's queries had when they were last in a batch, made anew before
    each epoch; "moving_average": moved at each step towards the mean of the batch's queries. Either way they begin, and a
    model that is evaluated or saved has them, as the mean of all queries' embeddings by the model as it then is.
    """

    name = "query centroids"
    needs_queries = True

    def __init__(self, prototypes: LabelPrototypes, positives: csr_matrix, labels: slice, config: TrainConfig) -> None:
        """positives: CSR [N, L] of the training queries. labels: those of them that are this process's."""
        self.prototypes, self.labels, self.seed = prototypes, labels, config.seed
        self.options = PrototypesConfig.require(config.label_vectors)
        transposed = csr_matrix(positives.T)[labels]
        self.queries = csr_matrix(
            (np.ones(transposed.nnz, np.float32), transposed.indices, transposed.indptr), transposed.shape
        )

    @classmethod
    def from_run(cls, run: TrainingRun) -> Self:
        """Those of the run's prototypes, by positives that are not excluded."""
        assert run.model.prototypes is not None
        return cls(run.model.prototypes, run.data.known.targets.truth, run.labels, run.config)

    @classmethod
    def memory(cls, sizes: Sizes) -> dict[str, float]:
        """The free vectors, and a centroid of each label."""
        options = PrototypesConfig.require(sizes.config.label_vectors)
        return {
            "free vectors, moments and gradient": 4 * sizes.row * min(options.clusters, sizes.labels),
            "query centroids (host)": sizes.own_labels * sizes.row,
        }

    def begin(self, run: TrainingRun) -> None:
        """Cluster the texts of all labels, embed all queries, and take their centroids."""
        texts = torch.cat(run.world.parts(run.first_label_texts))
        embeddings = embed_queries(run.model, run.data.query_features)
        bank = run.find(QueryBank)
        if bank is not None:
            bank.fill(torch.from_numpy(embeddings))
        self.cluster(texts, embeddings)

    def cluster(self, texts: Tensor, embeddings: npt.NDArray[np.float32]) -> None:
        """Cluster all labels by their unit text embeddings [L, D], and take the centroids of the queries' [N, D]."""
        options, seed = self.options, self.seed
        count = len(self.prototypes.free_vectors)
        clusters = balanced_clusters(texts.float().cpu().numpy(), count, seed=seed_for(seed, 0, Purpose.CLUSTERS))
        chosen = torch.from_numpy(clusters.astype(np.int64))
        random = torch_random(seed, 0, Purpose.FREE_VECTORS) if options.initial == "xavier" else None
        self.prototypes.begin(texts, chosen, random)
        self.prototypes.clusters = chosen[self.labels]
        self.renew(embeddings)

    def before_step(self, run: TrainingRun, batch: Batch) -> None:
        """Make stale centroids anew before each epoch but the first."""
        begins = batch.step > 0 and batch.step % run.steps_per_epoch == 0
        if begins and self.options.centroids == "stale":
            self.renew(query_embeddings(run))

    def after_step(self, run: TrainingRun, batch: Batch, report: StepReport) -> Mapping[str, Any]:
        """Move moving averages towards the batch's queries."""
        self.move(batch.targets, report.queries)
        return {}

    def renew(self, embeddings: npt.NDArray[np.float32]) -> None:
        """Take the centroids of the queries' embeddings [N, D]."""
        self.prototypes.centroids, self.prototypes.has_queries = query_centroids(self.queries, embeddings)

    def move(self, targets: StepTargets, embeddings: Tensor) -> None:
        """Move centroids towards a batch's queries [B, D], by their positives, where moving averages are configured."""
        if self.options.centroids != "moving_average":
            return
        pairs = targets.kept(targets.pull > 0).within(self.labels).transposed()
        ones = np.ones(len(pairs.labels), np.float32)
        transposed = csr_matrix((ones, pairs.labels.numpy(), pairs.indptr.numpy()), (len(pairs), len(targets)))
        rows = np.flatnonzero(np.diff(transposed.indptr))
        means, _ = query_centroids(transposed[rows], embeddings.float().cpu().numpy())
        self.prototypes.centroids[rows] = self.prototypes.centroids[rows].lerp(means, 1 - self.options.momentum)

    @contextlib.contextmanager
    def as_saved(self, run: TrainingRun) -> Iterator[None]:
        """While it lasts, prototypes have the centroids of all queries by the model as it is, not those of training."""
        before = self.prototypes.centroids
        self.renew(embed_queries(run.model, run.data.query_features))
        try:
            yield
        finally:
            self.prototypes.centroids = before

    def state(self) -> PartState:
        """Clusters and centroids of this process's labels."""
        prototypes = self.prototypes
        return PartState(
            rows={"prototypes.clusters": prototypes.clusters, "prototypes.centroids": prototypes.centroids}
        )

    def load_state(self, run: TrainingRun, checkpoint: Checkpoint) -> None:
        """Take up what `state` gave."""
        self.prototypes.clusters = checkpoint.tensor("prototypes.clusters", self.labels)
        self.prototypes.centroids = checkpoint.tensor("prototypes.centroids", self.labels)
        self.prototypes.has_queries = torch.from_numpy(np.diff(self.queries.indptr) > 0)


def query_centroids(queries: csr_matrix, embeddings: npt.NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """The mean embedding [L, D] of each label's queries, zero where it has none, and whether it has any, bool [L].

    queries: CSR [L, N] of ones, the queries of each label. embeddings: float32 [N, D] of the queries.
    """
    counts = np.diff(queries.indptr)
    sums = np.asarray(queries @ embeddings, np.float32)
    return torch.from_numpy(sums / np.maximum(counts, 1)[:, None].astype(np.float32)), torch.from_numpy(counts > 0)
