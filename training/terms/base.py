"""A term of the objective: a name, a weight, and a loss over what a step embedded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from xmc.config import TrainConfig
from xmc.encoders.dual import unit
from xmc.kernels.budget import TileBytes
from xmc.kernels.shards import LabelShard
from xmc.training.targets import StepTargets

__all__ = ["EmbeddedStep", "Term"]


@dataclass(frozen=True)
class EmbeddedStep:
    """What a term is a function of: the embeddings of a step, and what is known of their pairs.

    queries: [B, D] of all processes. labels: [C', D] of this process's labels among the step's C, or of all C of them.
    texts: those labels by their texts alone, where some term needs it; else None.
    targets, taught: over the C labels, on the CPU; a loss takes their `pairs_on` the embeddings' device. taught None without a
    teacher. log_inclusion: None, or float32 [C].
    temperature: τ. shard: which of the C labels are this process's; None for all. tile_bytes: largest tile of scores.
    keep_bytes: see `label_statistics`. multiplied: the type in which queries meet labels; None for that of the embeddings.
    propensities: float32 [C], the chance of each label to be marked where it is relevant; None for a loss without.
    """

    queries: Tensor
    labels: Tensor
    texts: Tensor | None
    targets: StepTargets
    taught: StepTargets | None
    log_inclusion: Tensor | None
    temperature: Tensor
    shard: LabelShard | None
    tile_bytes: TileBytes
    keep_bytes: int
    multiplied: torch.dtype | None = None
    propensities: Tensor | None = None

    def cut(self, dimension: int, normalize: bool) -> EmbeddedStep:
        """The same step with embeddings cut to their first numbers, and made unit again where `normalize` is set."""
        if dimension == self.queries.shape[1]:
            return self

        def shorter(embeddings: Tensor) -> Tensor:
            return unit(embeddings[:, :dimension]) if normalize else embeddings[:, :dimension]

        texts = None if self.texts is None else shorter(self.texts)
        return replace(self, queries=shorter(self.queries), labels=shorter(self.labels), texts=texts)


class Term(ABC):
    """One term of the objective. To add one, write a file with a class and register it in `xmc.training.terms.TERMS`."""

    name: ClassVar[str]
    needs_texts: ClassVar[bool] = False
    """Whether it is a function of the labels' texts alone, too."""

    def __init__(self, weight: float) -> None:
        """weight: the factor of the term in the objective."""
        self.weight = weight

    @classmethod
    @abstractmethod
    def from_config(cls, config: TrainConfig) -> Self | None:
        """The term as configured; None where the configuration does without it."""

    @property
    def needs_all_labels(self) -> bool:
        """Whether every process must have all labels of the step; else labels may be split over the processes."""
        return False

    @abstractmethod
    def loss(self, step: EmbeddedStep) -> Tensor:
        """The term without its weight, a scalar."""
