"""Gradient caching: embeddings of any number of texts for a loss, with the activations of one micro-batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xmc.encoders.transfer import on_device
from xmc.training.micro_batches import MicroBatch, StepEncoder, rows_of

__all__ = ["GradientCache"]


class GradientCache(StepEncoder):
    """GradCache (Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, RepL4NLP 2021).

    `encode` gives embeddings without a graph, leaves that take a gradient; after the loss has put gradients on them,
    `backward` encodes each micro-batch again, with the same dropout, and lets its embeddings' gradient run into the
    parameters. It costs a second forward pass. The parameters' gradients are those of the plain graph bit for bit on a CPU,
    since micro-batches are the same and are gone through in the order in which autograd would, the last one first.

    >>> cache = GradientCache()                                    # doctest: +SKIP
    >>> queries, labels = cache.encode(encoder, some), cache.encode(encoder, others)
    >>> loss(queries, labels).backward()
    >>> cache.backward()
    """

    def __init__(self) -> None:
        super().__init__()
        self._pending: list[tuple[Tensor, Sequence[MicroBatch]]] = []

    def backward(self) -> None:
        """Accumulate the parameters' gradients from those of all embeddings since the last call, and forget these."""
        # What earlier steps accumulated is added at the end, as autograd does it, so that sums are rounded alike.
        accumulated = [
            (parameter, parameter.grad)
            for encoder in self._encoders.values()
            for parameter in encoder.parameters()
            if parameter.grad is not None
        ]
        for parameter, _ in accumulated:
            parameter.grad = None
        while self._pending:
            self._encode_again(*self._pending.pop())
        super().backward()
        for parameter, before in accumulated:
            parameter.grad = before if parameter.grad is None else before.add_(parameter.grad)

    def _together(self, batches: Sequence[MicroBatch]) -> Tensor:
        with torch.no_grad():
            embeddings = super()._together(batches)
        embeddings.requires_grad_()
        self._pending.append((embeddings, batches))
        return embeddings

    def _encode_again(self, embeddings: Tensor, batches: Sequence[MicroBatch]) -> None:
        """Let the gradient of the embeddings of one `encode` call run into the parameters."""
        if embeddings.grad is None:
            return
        gradients = embeddings.grad[on_device(rows_of(batches), embeddings.device)]
        sizes = [len(batch.rows) for batch in batches]
        for batch, gradient in reversed(list(zip(batches, gradients.split(sizes), strict=True))):
            batch.encode().backward(gradient)
