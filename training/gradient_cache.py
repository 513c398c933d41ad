"""Gradient caching: embeddings of any number of texts for a loss, with the activations of one micro-batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder

__all__ = ["GradientCache"]


@dataclass(frozen=True)
class _MicroBatch:
    """Some texts of an `encode` call, their rows of `embeddings`, and the random state in which they were encoded."""

    encoder: Encoder
    features: RaggedTokens
    embeddings: Tensor
    rows: npt.NDArray[np.int64]
    random: tuple[Tensor, Tensor | None]


class GradientCache:
    """GradCache (Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, RepL4NLP 2021).

    `encode` gives embeddings without a graph; after the loss has put gradients on them, `backward` encodes each
    micro-batch again, with the same dropout, and lets its embeddings' gradient run into the parameters. It costs a second
    forward pass. The parameters' gradients are those of the uncached step bit for bit on a CPU, since micro-batches are the
    encoder's own and are gone through in the order in which autograd would, the last one first.

    >>> cache = GradientCache()                                    # doctest: +SKIP
    >>> queries, labels = cache.encode(encoder, some), cache.encode(encoder, others)
    >>> loss(queries, labels).backward()
    >>> cache.backward()
    """

    def __init__(self, context: Callable[[], torch.autocast] | None = None) -> None:
        """`context`: what encoders run in, such as autocast; None for nothing."""
        self._context = context or _nothing
        self._pending: list[_MicroBatch] = []

    def encode(self, encoder: Encoder, features: RaggedTokens) -> Tensor:
        """Embeddings [n, D] of the features, as `encoder(features)` has them: a leaf that takes a gradient."""
        batches = encoder.micro_batches(features)
        if not batches:
            nothing: Tensor = encoder(features)
            return nothing
        device = next(encoder.parameters()).device
        embeddings = torch.empty(0)
        with torch.no_grad(), self._context():
            for number, rows in enumerate(batches):
                state = _random_state(device)
                encoded = encoder(features.take(rows))
                if not number:
                    embeddings = encoded.new_empty(len(features), encoder.dimension)
                embeddings[torch.from_numpy(rows).to(device)] = encoded
                self._pending.append(_MicroBatch(encoder, features, embeddings, rows, state))
        return embeddings.requires_grad_()

    def backward(self) -> None:
        """Accumulate the parameters' gradients from those of all embeddings since the last call, and forget these."""
        if not self._pending:
            return
        device = self._pending[0].embeddings.device
        after = _random_state(device)
        # What earlier steps accumulated is added at the end, as autograd does it, so that sums are rounded alike.
        encoders = {id(batch.encoder): batch.encoder for batch in self._pending}.values()
        accumulated = [
            (parameter, parameter.grad)
            for encoder in encoders
            for parameter in encoder.parameters()
            if parameter.grad is not None
        ]
        for parameter, _ in accumulated:
            parameter.grad = None
        while self._pending:
            batch = self._pending.pop()
            gradient = batch.embeddings.grad
            if gradient is None:
                continue
            _set_random_state(batch.random, device)
            with self._context():
                embeddings = batch.encoder(batch.features.take(batch.rows))
            embeddings.backward(gradient[torch.from_numpy(batch.rows).to(device)])
        _set_random_state(after, device)
        for parameter, before in accumulated:
            parameter.grad = before if parameter.grad is None else before.add_(parameter.grad)


def _nothing() -> torch.autocast:
    return torch.autocast("cpu", enabled=False)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
