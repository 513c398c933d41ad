"""The encoding of a step, one micro-batch after another: the one loop that gradient caching and the plain graph share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder
from xmc.encoders.transfer import on_device

__all__ = ["MicroBatch", "StepEncoder", "rows_of"]


@dataclass(frozen=True)
class MicroBatch:
    """Some texts that are encoded together.

    rows: int64 [n], the texts among `features`. seed: of everything random in their encoding, such as dropout.
    """

    encoder: Encoder
    features: RaggedTokens
    rows: npt.NDArray[np.int64]
    seed: int

    def encode(self) -> Tensor:
        """Embeddings [n, D]; the same numbers at every call. torch's random state is the seed's afterwards."""
        torch.manual_seed(self.seed)
        embeddings: Tensor = self.encoder(self.features if self.is_everything else self.features.take(self.rows))
        return embeddings

    @property
    def is_everything(self) -> bool:
        """Whether these are all texts, in their order."""
        return np.array_equal(self.rows, np.arange(len(self.features)))


class StepEncoder:
    """Embeddings of a step's texts with the graph of all of them, which lives until the loss is differentiated.

    Every micro-batch draws its dropout from a seed of its own, a function of its number in the step: nothing is read from a
    device to know a random state, and nothing depends on what was drawn before.
    """

    def __init__(self) -> None:
        self._encoders: dict[int, Encoder] = {}
        self._seed_of: Callable[[int], int] = int
        self._count = 0

    def begin(self, seed_of: Callable[[int], int]) -> None:
        """Begin a step. seed_of: the seed of the micro-batch of a number, counted from 0."""
        self._seed_of, self._count = seed_of, 0

    def encode(self, encoder: Encoder, features: RaggedTokens) -> Tensor:
        """Embeddings [n, D] of the features, as `encoder(features)` has them but for what is random."""
        batches = self._split(encoder, features)
        if not batches:
            nothing: Tensor = encoder(features)
            return nothing
        return self._together(batches)

    def backward(self) -> None:
        """Let the gradients of all embeddings since the last call arrive at the parameters, and forget these.

        To be called when the loss is differentiated. Here autograd has brought them to what computed the embeddings.
        """
        for encoder in self._encoders.values():
            encoder.collect_gradients()
        self._encoders.clear()

    def _split(self, encoder: Encoder, features: RaggedTokens) -> list[MicroBatch]:
        self._encoders[id(encoder)] = encoder
        groups = encoder.micro_batches(features)
        start, self._count = self._count, self._count + len(groups)
        return [MicroBatch(encoder, features, rows, self._seed_of(number)) for number, rows in enumerate(groups, start)]

    def _together(self, batches: Sequence[MicroBatch]) -> Tensor:
        """Embeddings [n, D] of all micro-batches of one call, in the order of the features."""
        encoded = [batch.encode() for batch in batches]
        if batches[0].is_everything:
            return encoded[0]
        together = torch.cat(encoded)
        return torch.empty_like(together).index_copy_(0, on_device(rows_of(batches), together.device), together)


def rows_of(batches: Sequence[MicroBatch]) -> npt.NDArray[np.int64]:
    """Rows int64 [n] of all texts, micro-batch after micro-batch."""
    return np.concatenate([batch.rows for batch in batches])
