"""What a client does in a round, with its own queries alone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from xmc.arrays import Rows
from xmc.config import CheckpointConfig, TrainConfig
from xmc.config.federated import FederatedConfig
from xmc.data.dataset import Dataset
from xmc.encoders.dual import DualEncoder
from xmc.progress import progress
from xmc.training.callbacks import Callbacks
from xmc.training.checkpoints import Checkpoint, Checkpoints, require_same, settings_that_matter
from xmc.training.distributed import World
from xmc.training.embedding import embed_labels, encode_labels
from xmc.training.federated.averaging import Update, copy_weights
from xmc.training.federated.pseudo_labels import Named, agreed, name_labels, with_pseudo_labels
from xmc.training.parts import Progress, TrainingRun
from xmc.training.progress import TrainingProgress
from xmc.training.trainer import Trainer, prepare_run

__all__ = ["Client", "LocalWork"]

AVERAGE = "the average of the clients"
"""What the teacher is called."""


@dataclass(frozen=True)
class LocalWork:
    """What comes of a client's round. pseudo_labels, agreeing: numbers of its queries; loss: of the last step."""

    update: Update
    pseudo_labels: int
    agreeing: int
    loss: float


class Client:
    """A client, whose label vectors, and what its own model says of its queries, stay with it from round to round.

    The optimizer's moments begin anew in each round, and the learning rate goes on.
    """

    def __init__(
        self, number: int, dataset: Dataset, config: TrainConfig, options: FederatedConfig, folder: Path
    ) -> None:
        """folder: of all clients' files."""
        self.dataset, self.options = dataset, options
        self.name, self.folder = f"client {number}", folder / f"client-{number}"
        self.config = config.changed(checkpoint={"minutes": None}, **{"validation.split": None})
        self.checkpoints = Checkpoints(self.folder, CheckpointConfig(keep=2))

    def work(self, server: DualEncoder, round_: int, epochs: range, device: torch.device) -> LocalWork:
        """Train from the server's weights for some epochs, and keep what stays here as that of the end of the round."""
        run = prepare_run(self.dataset, self.config, device, World())
        copy_weights(server, run.model)
        before = self._before(round_)
        pseudo_labels, agreeing = self._learn_from_unlabelled(run, before)
        vectors = run.model.label_vectors
        if vectors is not None and before is not None:
            with torch.no_grad():
                vectors.copy_(before.tensor("label_vectors"))
        run.progress = Progress(0.0, steps=epochs.start * run.steps_per_epoch)
        LocalTrainer(run, self.folder, Callbacks(())).train(epochs, self.name)
        self._keep(run, round_)
        update = Update.between(server, run.model, len(run.data.training))
        return LocalWork(update, pseudo_labels, agreeing, run.progress.loss)

    def forget(self) -> None:
        """Remove the client's files."""
        self.checkpoints.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _learn_from_unlabelled(self, run: TrainingRun, before: Checkpoint | None) -> tuple[int, int]:
        """Have a run, whose model is the server's, learn from queries that are not labelled. before: of the last round."""
        options, known = self.options, run.data.known
        rows = _unlabelled(run)
        if not options.pseudo_labels:
            return 0, 0
        shape = (len(run.data.training), len(run.data.label_features))
        taught = csr_matrix((np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(shape[0] + 1, np.int64)), shape)
        pseudo_labels = 0
        if before is not None and len(rows):
            local = Named(before.tensor("named.labels").numpy(), before.tensor("named.probabilities").numpy())
            texts = encode_labels(run.model, run.data.label_features, run.world).float().cpu()
            count = min(self.config.objective.distillation.labels, shape[1])
            average = name_labels(run.model, run.data.query_features.take(rows), texts, count)
            entries = with_pseudo_labels(known, rows, local, average, options.threshold)
            pseudo_labels = len(entries.labels) - len(known.given.labels)
            known.use(entries)
            taught = agreed(rows, local, average, *shape)
        if options.consistency:
            known.taught = taught
            teacher = {"objective.distillation.teacher": AVERAGE, "objective.distillation.weight": options.consistency}
            run.config = run.config.changed(**teacher)
        return pseudo_labels, int(np.count_nonzero(np.diff(taught.indptr)))

    def _before(self, round_: int) -> Checkpoint | None:
        """What the last round left; None in the first."""
        if not round_:
            return None
        checkpoint = Checkpoint(self.checkpoints.path(round_))
        require_same(checkpoint, self._identity())
        return checkpoint

    def _keep(self, run: TrainingRun, round_: int) -> None:
        tensors: dict[str, torch.Tensor] = {}
        if run.model.label_vectors is not None:
            tensors["label_vectors"] = run.model.label_vectors
        if self.options.pseudo_labels:
            labels = embed_labels(run.model, run.data.label_features, run.world)
            named = name_labels(run.model, run.data.query_features.take(_unlabelled(run)), labels, 1)
            tensors["named.labels"] = torch.from_numpy(named.labels)
            tensors["named.probabilities"] = torch.from_numpy(named.probabilities)
        shutil.rmtree(self.checkpoints.path(round_ + 1), ignore_errors=True)  # of a round that was cut short
        self.checkpoints.save(round_ + 1, tensors, self._identity())

    def _identity(self) -> dict[str, Any]:
        return {"config": settings_that_matter(self.config), "dataset": self.dataset.fingerprint}


class LocalTrainer(Trainer):
    """The loop over the steps of a client's round, which writes no run."""

    def train(self, epochs: range, name: str) -> None:
        """Some epochs."""
        run = self.run
        run.begin()
        self.log.start(run.progress.steps)
        total = len(epochs) * run.steps_per_epoch
        try:
            with progress(name, total, unit="steps") as line:
                bar = TrainingProgress(line, run.config.batch_size)
                for _ in epochs:
                    self._epoch(bar)
        finally:
            self.log.close()
            for part in run.parts:
                part.close()


def _unlabelled(run: TrainingRun) -> Rows:
    """Rows of the training queries that are not labelled, int64."""
    labelled = run.data.training.labelled
    return np.zeros(0, np.int64) if labelled is None else np.flatnonzero(~labelled)
