"""The embedding that each training query had when it was last in a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import Self

from xmc.training.batch import Batch, StepReport
from xmc.training.checkpoints import Checkpoint
from xmc.training.embedding import embed_queries
from xmc.training.parts import PartState, Sizes, TrainingPart, TrainingRun

__all__ = ["QueryBank", "query_embeddings"]


class QueryBank(TrainingPart):
    """The embedding [N, D] that each training query had when it was last in a batch; float32 on the CPU."""

    name = "query bank"

    def __init__(self, queries: int, dimension: int) -> None:
        self.embeddings = torch.zeros(queries, dimension)
        self.seen = torch.zeros(queries, dtype=torch.bool)

    @classmethod
    def from_run(cls, run: TrainingRun) -> Self:
        """An empty bank of the training queries."""
        return cls(len(run.data.training), run.model.dimension)

    @classmethod
    def memory(cls, sizes: Sizes) -> dict[str, float]:
        """A row for each training query."""
        return {"query bank": sizes.queries * sizes.row}

    def fill(self, embeddings: Tensor) -> None:
        """Hold the embeddings [N, D] of all queries."""
        self.embeddings.copy_(embeddings)
        self.seen.fill_(True)

    def record(self, rows: Tensor, embeddings: Tensor) -> None:
        """Hold the embeddings [n, D] of the queries `rows` (int64 [n])."""
        self.embeddings[rows] = embeddings.detach().float().cpu()
        self.seen[rows] = True

    def after_step(self, run: TrainingRun, batch: Batch, report: StepReport) -> Mapping[str, Any]:
        """Hold the embeddings of the batch."""
        self.record(torch.from_numpy(batch.rows), report.queries)
        return {}

    def state(self) -> PartState:
        """Embeddings, and which queries have one."""
        return PartState({"queries.embeddings": self.embeddings, "queries.seen": self.seen})

    def load_state(self, run: TrainingRun, checkpoint: Checkpoint) -> None:
        """Take up what `state` gave."""
        for name, tensor in self.state().shared.items():
            tensor.copy_(checkpoint.tensor(name))


def query_embeddings(run: TrainingRun) -> npt.NDArray[np.float32]:
    """Embeddings float32 [N, D] of all training queries, from the query bank; encoded now where it lacks some."""
    bank = run.find(QueryBank)
    if bank is None or not bool(bank.seen.all()):
        return embed_queries(run.model, run.data.query_features)
    held: npt.NDArray[np.float32] = bank.embeddings.numpy()
    return held
