"""What an encoder is: a module that turns texts into features once, and features into embeddings at every step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xmc.data.images.ragged import RaggedImages
from xmc.data.tokens import RaggedTokens
from xmc.errors import InputError

__all__ = ["Encoder", "Side"]

Side = Literal["query", "label"]
"""Whose text it is: a prompt may differ between the two."""


class Encoder(nn.Module, ABC):
    """Texts to embeddings in two stages, so that training tokenises every text once.

    `featurize` runs on the host, depends on no learned parameter and can be cached; `forward` is differentiable.
    Embeddings are L2-normalised by whoever owns the encoder (the dual encoder), after residual vectors are added.
    """

    kind: ClassVar[str]
    """The name used in configurations, e.g. "static"."""

    dimension: int
    """Length D of an embedding."""

    image_dimension: int = 0
    """Numbers of an image embedding that it takes along with a text; 0 where it takes none."""

    @abstractmethod
    def featurize(self, texts: Sequence[str], side: Side = "query") -> RaggedTokens:
        """Token ids of each text; deterministic, independent of the other texts."""

    @property
    @abstractmethod
    def features_key(self) -> str:
        """A string that changes whenever `featurize` would give other features for the same text and side."""

    @abstractmethod
    def forward(self, features: RaggedTokens) -> Tensor:
        """Embeddings [n, D] of n feature sequences, not normalised; an empty sequence gives a zero or constant row."""

    def fixed_tokens(self, features: RaggedTokens, side: Side) -> npt.NDArray[np.bool_]:
        """Which tokens `drop` never drops, bool [total]: those that are not the text's."""
        return np.zeros(len(features.values), bool)

    def drop(
        self,
        features: RaggedTokens,
        dropout: float,
        generator: torch.Generator | None = None,
        side: Side = "query",
    ) -> RaggedTokens:
        """The sequences without a random share of their tokens: each is left out with the probability `dropout` in [0, 1).

        Drawn from `generator`. side: whose they are. Raises InputError for another probability.
        """
        if not 0 <= dropout < 1:
            raise InputError(f"Token dropout must be in [0, 1), but is {dropout}.")
        if dropout == 0:
            return features
        mask = (torch.rand(len(features.values), generator=generator) >= dropout).numpy()
        mask |= self.fixed_tokens(features, side)
        ends = np.concatenate([[0], np.cumsum(mask)])[features.offsets]
        return RaggedTokens(features.values[mask], ends.astype(np.int64), features.images)

    def images_of(self, images: RaggedImages | None) -> RaggedImages | None:
        """What this encoder takes of a data set's images: all of them, or None where it takes none.

        Raises InputError for embeddings of another length than it takes.
        """
        if images is None or not self.image_dimension:
            return None
        if images.dimension != self.image_dimension:
            raise InputError(
                f"The encoder takes image embeddings of {self.image_dimension} numbers, but these have {images.dimension}."
            )
        return images

    def require_tokens(self, values: npt.NDArray[np.unsignedinteger]) -> None:
        """Raise InputError for tokens that `featurize` would not give; any is one where features are hashes."""

    def micro_batches(self, features: RaggedTokens) -> list[npt.NDArray[np.int64]]:
        """Rows of the sequences that `forward` encodes together; their activations are what a graph of them holds."""
        return [np.arange(len(features))] if len(features) else []

    def merged(self) -> Encoder:
        """An encoder of the same embeddings that needs nothing outside of what it saves; itself where that is so already.

        Raises ConfigError where that cannot be made.
        """
        return self

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write everything needed by `load` into an existing empty directory: safetensors and JSON only."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> Encoder:
        """Read an encoder written by `save`."""
