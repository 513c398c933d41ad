"""What an encoder is: a module that turns texts into features once, and features into embeddings at every step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from xmc.data.tokens import RaggedTokens

__all__ = ["Encoder"]


class Encoder(nn.Module, ABC):
    """Texts to embeddings in two stages, so that training tokenises every text once.

    `featurize` runs on the host, depends on no learned parameter and can be cached; `forward` is differentiable.
    Embeddings are L2-normalised by whoever owns the encoder (the dual encoder), after residual vectors are added.
    """

    kind: ClassVar[str]
    """The name used in configurations, e.g. "static"."""

    dimension: int
    """Length D of an embedding."""

    @abstractmethod
    def featurize(self, texts: Sequence[str]) -> RaggedTokens:
        """Token ids of each text; deterministic, independent of the other texts."""

    @property
    @abstractmethod
    def features_key(self) -> str:
        """A string that changes whenever `featurize` would give other features for the same text (the cache key)."""

    @abstractmethod
    def forward(self, features: RaggedTokens, dropout: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """Embeddings [n, D] of n feature sequences, not normalised; an empty sequence gives a zero or constant row.

        dropout: the probability with which a token is dropped, drawn from `generator`.
        """

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write everything needed by `load` into an existing empty directory: safetensors and JSON only."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> Encoder:
        """Read an encoder written by `save`."""
