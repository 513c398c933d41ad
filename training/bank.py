"""Banks of embeddings that are some steps old: of all labels, so that they enter every softmax, and of the queries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xmc.training.checkpoints import Checkpoint
from xmc.training.distributed import World

__all__ = ["BankReport", "LabelBank", "QueryBank"]


@dataclass(frozen=True)
class BankReport:
    """How stale the bank is. age: mean steps since a label was encoded. drift: mean 1 - cosine between the cached and the
    fresh embedding of the labels that this step encoded, by how many steps the cached one was old on average (`span`)."""

    age: float
    drift: float
    span: float

    def over(self, world: World, labels: int, encoded: int) -> BankReport:
        """Of all processes, of which this one has so many `labels`, and `encoded` some in this step."""
        (age,) = world.mean(self.age, weight=labels)
        return BankReport(age, *world.mean(self.drift, self.span, weight=encoded))


class LabelBank:
    """Unit embeddings [L, D] of label texts, and the step at which each was encoded.

    A step encodes some labels anew, with gradient, and takes the rest from here as constants; what it encoded is
    written back. It lives on the model's device.
    """

    def __init__(self, labels: int, dimension: int, device: torch.device | str = "cpu") -> None:
        self.embeddings = torch.zeros(labels, dimension, device=device)
        self.encoded_at = torch.zeros(labels, dtype=torch.int32, device=device)

    def fill(self, embeddings: Tensor) -> None:
        """Hold these, encoded before the first step."""
        self.embeddings.copy_(embeddings)

    def __len__(self) -> int:
        return len(self.embeddings)

    def renew(self, rows: Tensor, fresh: Tensor, step: int) -> tuple[Tensor, BankReport]:
        """All embeddings [L, D] with those of `rows` (int64 [n], unique) replaced by `fresh` [n, D], which takes gradients.

        The bank holds the fresh values afterwards. Also says how stale it was.
        """
        values = fresh.detach().to(self.embeddings.dtype)
        cosines = torch.linalg.vecdot(self.embeddings[rows].float(), values.float())
        ages = (step - self.encoded_at[rows]).float()
        self.embeddings[rows] = values
        self.encoded_at[rows] = step
        age = float((step - self.encoded_at).float().mean()) if len(self) else 0.0
        report = BankReport(age, *((float((1 - cosines).mean()), float(ages.mean())) if len(rows) else (0.0, 0.0)))
        return self.embeddings.to(fresh.dtype).index_copy(0, rows, fresh), report

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds of this process's labels."""
        return {"bank.embeddings": self.embeddings, "bank.encoded_at": self.encoded_at}

    def load_state(self, checkpoint: Checkpoint, rows: slice) -> None:
        """Take up the `rows` that are this process's."""
        for tensor, name in ((self.embeddings, "bank.embeddings"), (self.encoded_at, "bank.encoded_at")):
            tensor.copy_(checkpoint.tensor(name, rows))


class QueryBank:
    """The embedding [N, D] that each training query had when it was last in a batch; float32 on the CPU."""

    def __init__(self, queries: int, dimension: int) -> None:
        self.embeddings = torch.zeros(queries, dimension)
        self.seen = torch.zeros(queries, dtype=torch.bool)

    def fill(self, embeddings: Tensor) -> None:
        """Hold these of all queries, embedded before the first step."""
        self.embeddings.copy_(embeddings)
        self.seen.fill_(True)

    def record(self, rows: Tensor, embeddings: Tensor) -> None:
        """Keep what the queries `rows` (int64 [n]) are now."""
        self.embeddings[rows] = embeddings.detach().float().cpu()
        self.seen[rows] = True

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return {"queries.embeddings": self.embeddings, "queries.seen": self.seen}

    def load_state(self, checkpoint: Checkpoint) -> None:
        """Take up what `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(checkpoint.tensor(name))
