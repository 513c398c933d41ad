"""Embeddings of all labels that are some steps old, so that every label enters every softmax."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xmc.training.distributed import World

__all__ = ["BankReport", "LabelBank"]


@dataclass(frozen=True)
class BankReport:
    """How stale the bank is.

    age: mean number of steps since a label was encoded. drift: mean 1 - cosine between the cached and the fresh embedding of
    the labels that the step encoded; span: mean number of steps by which their cached embeddings were old.
    """

    age: float
    drift: float
    span: float

    def over(self, world: World, labels: int, encoded: int) -> BankReport:
        """The means over all processes; this one has `labels` labels, and encoded `encoded` of them."""
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
        """Hold the embeddings [L, D] of all labels, encoded before the first step."""
        self.embeddings.copy_(embeddings)

    def __len__(self) -> int:
        return len(self.embeddings)

    def renew(self, rows: Tensor, fresh: Tensor, step: int) -> tuple[Tensor, BankReport]:
        """All embeddings [L, D] with those of `rows` (int64 [n], unique) replaced by `fresh` [n, D], which takes gradients.

        The bank holds the fresh values afterwards. Also returns how stale it was.
        """
        values = fresh.detach().to(self.embeddings.dtype)
        cosines = torch.linalg.vecdot(self.embeddings[rows].float(), values.float())
        ages = (step - self.encoded_at[rows]).float()
        self.embeddings[rows] = values
        self.encoded_at[rows] = step
        age = float((step - self.encoded_at).float().mean()) if len(self) else 0.0
        report = BankReport(age, *((float((1 - cosines).mean()), float(ages.mean())) if len(rows) else (0.0, 0.0)))
        return self.embeddings.to(fresh.dtype).index_copy(0, rows, fresh), report
